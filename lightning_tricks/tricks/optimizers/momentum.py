"""Gradient descent with a velocity.

γ makes steps 1/(1 − γ) times as long: if you raise γ from 0.9 to 0.99, divide η by ten. For this
reason, γ is searched by its distance to one.
"""

from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from lightning_tricks.space.domains import Float, OneMinus
from lightning_tricks.tricks.optimizers.flat import State
from lightning_tricks.tricks.optimizers.formula import FormulaTrick, Number, start
from lightning_tricks.tricks.optimizers.kernels import TorchSGD


class Momentum(FormulaTrick):
    """v ← γ·v − η·g; w ← w + v (Polyak, 1964; Sutskever et al., 2013).

    The velocity contains past learning rates, so it is still fast after a drop of η.

    When it helps: in image networks with a tuned learning rate and schedule.
    """

    kind: Literal["momentum"] = "momentum"
    lr: Annotated[float, Float(1e-3, 0.5, log=True)] = Field(default=0.05, gt=0)
    gamma: Annotated[float, OneMinus(5e-3, 0.3)] = Field(default=0.9, ge=0, lt=1)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        velocity = start(state, "velocity", gradient).mul_(self.gamma).sub_(lr * gradient)
        state["velocity"] = velocity
        return velocity


class TorchMomentum(FormulaTrick):
    """b ← γ·b + g; w ← w − η·b, as in `torch.optim.SGD`.

    It equals `momentum` while η is constant. A drop of η slows it down at once.

    When it helps: in image networks, with published hyperparameters, which mean this form.
    """

    kind: Literal["torch_momentum"] = "torch_momentum"
    lr: Annotated[float, Float(1e-3, 0.5, log=True)] = Field(default=0.05, gt=0)
    gamma: Annotated[float, OneMinus(5e-3, 0.3)] = Field(default=0.9, ge=0, lt=1)

    def torch_optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        return TorchSGD(groups, lr=self.lr, momentum=self.gamma, fused=True)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        buffer = start(state, "buffer", gradient).mul_(self.gamma).add_(gradient)
        state["buffer"] = buffer
        return -lr * buffer


class Nesterov(FormulaTrick):
    """b ← γ·b + g; w ← w − η·(g + γ·b) (Nesterov, 1983; Sutskever et al., 2013).

    When it helps: where `torch_momentum` does. It is a little steadier if γ is large.
    """

    kind: Literal["nesterov"] = "nesterov"
    lr: Annotated[float, Float(1e-3, 0.5, log=True)] = Field(default=0.05, gt=0)
    gamma: Annotated[float, OneMinus(5e-3, 0.3)] = Field(default=0.9, ge=0, lt=1)

    def torch_optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        return TorchSGD(groups, lr=self.lr, momentum=self.gamma, nesterov=self.gamma > 0, fused=True)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        buffer = start(state, "buffer", gradient).mul_(self.gamma).add_(gradient)
        state["buffer"] = buffer
        return -lr * (gradient + self.gamma * buffer)
