"""Muon: the momentum of each matrix, made orthogonal.

Learning rates close to Adam's suit it, because its steps are scaled to the length of Adam's. It pays in
wide hidden layers. A network of small matrices gains little for the time that it takes.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_tricks.errors import InputError
from lightning_tricks.space.domains import Float, OneMinus
from lightning_tricks.surgery.watch import anatomy_of
from lightning_tricks.surgery.weight_norm import weights_in
from lightning_tricks.tricks.optimizers.adam import Adam
from lightning_tricks.tricks.optimizers.base import OptimizerTrick
from lightning_tricks.tricks.optimizers.flat import State, flat_steps
from lightning_tricks.tricks.optimizers.penalized import PenalizedOptimizer


class Muon(OptimizerTrick):
    """w ← w − η·0.2·√max(n, m)·UVᵀ, where USVᵀ is the n×m momentum (Jordan et al., 2024).

    It trains the weights of hidden layers; a convolution counts as a matrix of n output channels. Its
    steps are scaled to the length of Adam's. All other parameters, including the head's, follow Adam
    with the same η.

    When it helps: in networks with wide hidden layers, including transformers. A step takes longer than
    Adam's.
    """

    elementwise: ClassVar[bool] = False
    kind: Literal["muon"] = "muon"
    lr: Annotated[float, Float(1e-4, 3e-2, log=True)] = Field(default=2e-3, gt=0)
    momentum: Annotated[float, OneMinus(0.02, 0.2)] = Field(default=0.95, ge=0, lt=1)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)

    def build(self, groups: list[dict[str, Any]], module: nn.Module) -> Optimizer:
        hidden = {
            id(parameter)
            for layer, weight, parameter in weights_in(module, anatomy_of(module))
            if not layer.output and not layer.tied and weight.parts == 1
        }
        if not hidden:
            raise InputError(
                "optimizer 'muon' found nothing to act on: looked for the weights of linear and "
                "convolutional layers other than the outputs"
            )
        return MuonOptimizer(groups, self, hidden)


class MuonOptimizer(PenalizedOptimizer):
    """Muon for the groups of matrices, Adam for the others.

    Args:
        groups: groups of parameters. A group of matrices and others is split, also if it is added later,
            as for layers that start to learn later.
        trick: the hyperparameters of both.
        hidden: the ids of the parameters that are matrices.
    """

    def __init__(self, groups: list[dict[str, Any]], trick: Muon, hidden: set[int]) -> None:
        self._hidden = hidden
        super().__init__(groups, trick.lr)
        self._adam = Adam(beta1=trick.beta1, beta2=trick.beta2)
        self._momentum = trick.momentum

    @property
    def acts(self) -> bool:
        """Whether there is a matrix to act on now."""
        return any(group["matrices"] for group in self.param_groups)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        parameters = param_group["params"]
        parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        for matrices in (True, False):
            chosen = [p for p in parameters if (id(p) in self._hidden) == matrices]
            if chosen:
                super().add_param_group({**param_group, "params": chosen, "matrices": matrices})

    def steps(
        self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]
    ) -> Sequence[Tensor]:
        if not group["matrices"]:
            return flat_steps(self._adam.update, group, parameters, gradients, self.state)
        pairs = zip(parameters, gradients, strict=True)
        return [self._step(self.state[p], gradient, group["lr"]).view_as(p) for p, gradient in pairs]

    def _step(self, state: State, gradient: Tensor, lr: float) -> Tensor:
        """Return the step of a matrix, with Nesterov's momentum."""
        matrix = gradient.flatten(1)
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(matrix)
        average = state["momentum"].lerp_(matrix, 1 - self._momentum)
        direction = orthogonalized(matrix.lerp(average, self._momentum))
        return direction * (-lr * 0.2 * math.sqrt(max(matrix.shape)))


def orthogonalized(matrix: Tensor) -> Tensor:
    """Return about UVᵀ for a matrix USVᵀ, by five Newton-Schulz iterations (Jordan et al., 2024).

    The singular values end between 0.5 and 1.5, which is close enough. `torch.optim.Muon` iterates in
    bfloat16 everywhere. Where a device only emulates that, as most CPUs do, it takes up to 40 times as
    long, so such a device uses float32 here.
    """
    wide = matrix if matrix.size(0) <= matrix.size(1) else matrix.T
    found = wide.to(_precision(matrix.device))
    found = found / found.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = found @ found.T
        change = torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        found = torch.addmm(found, change, found, beta=3.4445)
    return (found if wide is matrix else found.T).to(matrix.dtype)


def _precision(device: torch.device) -> torch.dtype:
    """Return the fastest type on a device that is exact enough for the iterations."""
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float32
