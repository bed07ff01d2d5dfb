"""Muon: the momentum of each matrix, made orthogonal.

About Adam's learning rates suit it, for its steps are scaled to the length of Adam's. It pays in wide
hidden layers; a network of small matrices gains little for the time that it takes.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_tricks.errors import InputError
from lightning_tricks.space.domains import Float, OneMinus
from lightning_tricks.surgery.watch import anatomy_of
from lightning_tricks.surgery.weight_norm import trained_weights
from lightning_tricks.tricks.optimizers.adam import Adam
from lightning_tricks.tricks.optimizers.base import OptimizerTrick
from lightning_tricks.tricks.optimizers.flat import flat_steps
from lightning_tricks.tricks.optimizers.penalized import PenalizedOptimizer


class Muon(OptimizerTrick):
    """w ← w − η·0.2·√max(n, m)·UVᵀ, where USVᵀ is the n×m momentum (Jordan et al., 2024).

    For the weights of hidden layers, convolutions read as matrices of n output channels, with
    `torch.optim.Muon`, whose steps are scaled to the length of Adam's. All other parameters, the
    head's among them, follow Adam with the same η.

    When it helps: in networks of wide hidden layers, transformers among them. A step takes longer than
    Adam's.
    """

    elementwise: ClassVar[bool] = False
    kind: Literal["muon"] = "muon"
    lr: Annotated[float, Float(1e-4, 3e-2, log=True)] = Field(2e-3, gt=0)
    momentum: Annotated[float, OneMinus(0.02, 0.2)] = Field(0.95, ge=0, lt=1)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)

    def build(self, groups: list[dict[str, Any]], module: nn.Module) -> Optimizer:
        hidden = {
            id(parameter)
            for layer, weight, parameter in trained_weights(module, anatomy_of(module))
            if not layer.output and not layer.tied and weight.parts == 1
        }
        split: list[dict[str, Any]] = []
        for group in groups:
            for matrices in (True, False):
                chosen = [p for p in group["params"] if (id(p) in hidden) == matrices]
                if chosen:
                    split.append({**group, "params": chosen, "matrices": matrices})
        if not any(group["matrices"] for group in split):
            raise InputError(
                "optimizer 'muon' found nothing to act on: looked for the weights of linear and "
                "convolutional layers other than the outputs"
            )
        return MuonOptimizer(split, self)


class MuonOptimizer(PenalizedOptimizer):
    """Torch's Muon for the groups of matrices, Adam for the others.

    Args:
        groups: of parameters; `matrices` says which are of matrices.
        trick: the numbers of both.
    """

    def __init__(self, groups: list[dict[str, Any]], trick: Muon) -> None:
        super().__init__(groups, trick.lr)
        self._adam = Adam(beta1=trick.beta1, beta2=trick.beta2)
        # Torch's Muon takes matrices only, and changes them: of each weight it has one that is zero
        # before a step, and the step after it.
        self._matrices = {
            parameter: nn.Parameter(torch.zeros_like(parameter.detach().flatten(1)))
            for group in self.param_groups
            if group["matrices"]
            for parameter in group["params"]
        }
        self._muon = torch.optim.Muon(
            self._matrices.values(),
            weight_decay=0.0,
            momentum=trick.momentum,
            adjust_lr_fn="match_rms_adamw",
        )

    def steps(
        self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]
    ) -> Sequence[Tensor]:
        if not group["matrices"]:
            return flat_steps(self._adam.update, group, parameters, gradients, self.state)
        self._muon.zero_grad()
        self._muon.param_groups[0]["lr"] = group["lr"]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            matrix, state = self._matrices[parameter], self.state[parameter]
            matrix.zero_()
            matrix.grad = gradient.flatten(1)
            if "momentum" in state:  # of a checkpoint, it may be
                self._muon.state[matrix]["momentum_buffer"] = state["momentum"]
        self._muon.step()  # type: ignore[no-untyped-call]
        for parameter in parameters:
            buffer = self._muon.state[self._matrices[parameter]]["momentum_buffer"]
            self.state[parameter]["momentum"] = buffer
        return [self._matrices[parameter].detach().view_as(parameter) for parameter in parameters]
