"""Sharpness-aware minimization: prefer weights whose surroundings have a low loss too."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lightning_tricks.space.domains import Float
from lightning_tricks.space.trick import Trick
from lightning_tricks.surgery.torch_internals import (
    BatchNormLayer,
    foreach_add_,
    foreach_copy_,
    foreach_mul,
    foreach_norm,
)

Evaluate = Callable[[], Any]
"""A function that runs a batch forward and backward, and leaves the gradients in the parameters."""


class SharpnessTrick(Trick):
    """The point at which the gradient is taken."""

    structural: ClassVar[Literal["", "kind", "fields"]] = "kind"

    def climb(self, gradient: Tensor) -> Tensor:
        """Return what to add to the weights before the gradient of the step is taken.

        Args:
            gradient: the gradient of all weights, as one vector.
        """
        return torch.zeros_like(gradient)

    @abstractmethod
    def closure(self, module: nn.Module, evaluate: Evaluate) -> Evaluate:
        """Return a function that leaves the gradients of the step in a module's parameters."""


class NoSharpness(SharpnessTrick):
    """The gradient is taken at the weights themselves."""

    neutral: ClassVar[bool] = True
    kind: Literal["none"] = "none"

    def closure(self, module: nn.Module, evaluate: Evaluate) -> Evaluate:
        del module
        return evaluate


class SharpnessAware(SharpnessTrick):
    """g ← ∇L(w + ρ·∇L(w)/‖∇L(w)‖) as SAM (Foret et al., 2021). A step costs two passes.

    Both passes see the same augmentation, mixing and dropout. The batch-norm statistics come from the
    first pass. Your own `training_step` logs everything twice.

    When it helps: in long runs that overfit, if you can afford a second pass.
    """

    searched: ClassVar[bool] = False
    kind: Literal["sam"] = "sam"
    rho: Annotated[float, Float(0.01, 0.2, log=True)] = Field(default=0.05, gt=0)

    def climb(self, gradient: Tensor) -> Tensor:
        return gradient * self._share(torch.linalg.vector_norm(gradient))

    def _share(self, norm: Tensor) -> Tensor:
        """Return the factor that gives a gradient of this norm the length ρ."""
        return self.rho / (norm + 1e-12)

    def closure(self, module: nn.Module, evaluate: Evaluate) -> Evaluate:
        def twice() -> Any:
            device = next(module.parameters()).device
            draws = _random_state(device)
            result = evaluate()
            if all(parameter.grad is None for parameter in module.parameters()):
                return result  # this step has no loss
            with self._climbed(module), _statistics_kept(module):
                _draw_again(draws, device)
                evaluate()
            return result

        return twice

    @contextmanager
    def _climbed(self, module: nn.Module) -> Iterator[None]:
        """Move the weights uphill inside the `with` block."""
        parameters: list[Tensor] = [p for p in module.parameters() if p.grad is not None]
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            gradients = [p.grad for p in parameters if p.grad is not None]
            norm = torch.linalg.vector_norm(torch.stack(foreach_norm(gradients)))
            climb = foreach_mul(gradients, self._share(norm))
            foreach_add_(parameters, list(climb))
        try:
            yield
        finally:
            with torch.no_grad():
                foreach_copy_(parameters, before)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    norms = [m for m in module.modules() if isinstance(m, BatchNormLayer)]
    kept = [(norm, norm.track_running_stats) for norm in norms if norm.training]
    for norm, _ in kept:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm, tracked in kept:
            norm.track_running_stats = tracked


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _draw_again(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


Sharpness = NoSharpness | SharpnessAware
