"""An optimizer that adds the weight decays of a recipe to the steps of a formula."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_tricks.surgery.torch_internals import foreach_add, foreach_add_, foreach_mul_


class PenalizedOptimizer(Optimizer):
    """An optimizer with weight decays; a subclass computes the steps.

    Penalties change the gradients, decoupled decay changes the weights. A parameter without a gradient
    is skipped, as in torch: no step, no decay, no entry in the state.

    Args:
        groups: groups of parameters; their keys `l2`, `l1` and `decoupled` default to 0.
        lr: the learning rate of groups without their own.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr, "l2": 0.0, "l1": 0.0, "decoupled": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; evaluates the closure first, with gradients enabled."""
        loss = evaluate(closure)
        found = [(group, active(group)) for group in self.param_groups]
        found = [(group, parameters) for group, parameters in found if parameters]
        gradients = [g for group, parameters in found for g in penalized(group, parameters)]
        directed = iter(self.direct(gradients) if gradients else ())
        for group, parameters in found:
            steps = self.steps(group, parameters, [next(directed) for _ in parameters])
            if group["decoupled"]:
                foreach_mul_(parameters, 1 - group["lr"] * group["decoupled"])
            foreach_add_(parameters, list(steps))
        return loss

    def direct(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the gradients of all groups, one for each parameter, as `steps` should see them."""
        return gradients

    @abstractmethod
    def steps(
        self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]
    ) -> Sequence[Tensor]:
        """Return what to add to each parameter of a group that has a gradient."""


def evaluate(closure: Callable[[], Any] | None) -> Any:
    """Return the loss of a closure, with gradients enabled; None if there is no closure."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def active(group: dict[str, Any]) -> list[Tensor]:
    """Return the parameters of a group that have a gradient."""
    return [parameter for parameter in group["params"] if parameter.grad is not None]


def penalized(group: dict[str, Any], parameters: list[Tensor]) -> Sequence[Tensor]:
    """Return the gradients plus those of the L2 and L1 penalties; the parameters stay unchanged."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if parameters and group["l2"]:
        gradients = list(foreach_add(gradients, parameters, alpha=group["l2"]))
    if parameters and group["l1"]:
        signs = [parameter.sign() for parameter in parameters]
        gradients = list(foreach_add(gradients, signs, alpha=group["l1"]))
    return gradients


def penalize(group: dict[str, Any]) -> list[Tensor]:
    """Add the penalties to the parameters' gradients; return the parameters that have a gradient."""
    parameters = active(group)
    for parameter, gradient in zip(parameters, penalized(group, parameters), strict=True):
        parameter.grad = gradient
    return parameters
