"""Muon: the momentum of each matrix, made orthogonal.

Learning rates close to Adam's suit it, because its steps are scaled to the length of Adam's. It pays in
wide hidden layers. A network of small matrices gains little for the time that it takes.
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
from lightning_tricks.surgery.weight_norm import weights_in
from lightning_tricks.tricks.optimizers.adam import Adam
from lightning_tricks.tricks.optimizers.base import OptimizerTrick
from lightning_tricks.tricks.optimizers.flat import flat_steps
from lightning_tricks.tricks.optimizers.penalized import PenalizedOptimizer


class Muon(OptimizerTrick):
    """w ← w − η·0.2·√max(n, m)·UVᵀ, where USVᵀ is the n×m momentum (Jordan et al., 2024).

    It trains the weights of hidden layers with `torch.optim.Muon`; a convolution counts as a matrix of
    n output channels. Its steps are scaled to the length of Adam's. All other parameters, including the
    head's, follow Adam with the same η.

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
    """Torch's Muon for the groups of matrices, Adam for the others.

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
        # Torch's Muon takes matrices only, and changes them. So each weight gets a matrix that is zero
        # before a step and holds the step afterward.
        self._matrices: dict[Tensor, nn.Parameter] = {}
        self._muon: torch.optim.Muon | None = None

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

    def _matrix(self, parameter: Tensor) -> nn.Parameter:
        """Return the matrix that stands for a parameter in torch's Muon."""
        if parameter not in self._matrices:
            matrix = nn.Parameter(torch.zeros_like(parameter.detach().flatten(1)))
            self._matrices[parameter] = matrix
            if self._muon is None:
                self._muon = torch.optim.Muon(
                    [matrix],
                    weight_decay=0.0,
                    momentum=self._momentum,
                    adjust_lr_fn="match_rms_adamw",
                )
            else:
                self._muon.param_groups[0]["params"].append(matrix)
        return self._matrices[parameter]

    def steps(
        self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]
    ) -> Sequence[Tensor]:
        if not group["matrices"]:
            return flat_steps(self._adam.update, group, parameters, gradients, self.state)
        matrices = [self._matrix(parameter) for parameter in parameters]
        assert self._muon is not None  # it is made with the first matrix
        self._muon.zero_grad()
        self._muon.param_groups[0]["lr"] = group["lr"]
        for parameter, matrix, gradient in zip(parameters, matrices, gradients, strict=True):
            matrix.zero_()
            matrix.grad = gradient.flatten(1)
            if "momentum" in self.state[parameter]:  # perhaps from a checkpoint
                held = self._muon.state[matrix]
                held["momentum_buffer"] = self.state[parameter]["momentum"]
        self._muon.step()  # type: ignore[no-untyped-call]
        for parameter, matrix in zip(parameters, matrices, strict=True):
            self.state[parameter]["momentum"] = self._muon.state[matrix]["momentum_buffer"]
        return [m.detach().view_as(p) for m, p in zip(matrices, parameters, strict=True)]
