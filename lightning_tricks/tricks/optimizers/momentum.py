"""Gradient descent with a velocity.

A velocity of γ makes steps 1/(1 − γ) times as long: where γ goes from 0.9 to 0.99, η goes down by ten.
γ is searched by its distance to one for that reason.
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
    """v ← γ·v − η·g; w ← w + v, as the lesson has it (Polyak, 1964; Sutskever et al., 2013).

    The velocity holds past learning rates: after a drop of η it is still fast.

    When it helps: in image networks with a tuned learning rate and schedule.
    """

    kind: Literal["momentum"] = "momentum"
    lr: Annotated[float, Float(1e-3, 0.5, log=True)] = Field(0.05, gt=0)
    gamma: Annotated[float, OneMinus(5e-3, 0.3)] = Field(0.9, ge=0, lt=1)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        velocity = start(state, "velocity", gradient).mul_(self.gamma).sub_(lr * gradient)
        state["velocity"] = velocity
        return velocity


class TorchMomentum(FormulaTrick):
    """b ← γ·b + g; w ← w − η·b, as `torch.optim.SGD` has it.

    Equal to `momentum` while η is constant; a drop of η slows it down at once.

    When it helps: in image networks, with the numbers of published recipes, which mean this form.
    """

    kind: Literal["torch_momentum"] = "torch_momentum"
    lr: Annotated[float, Float(1e-3, 0.5, log=True)] = Field(0.05, gt=0)
    gamma: Annotated[float, OneMinus(5e-3, 0.3)] = Field(0.9, ge=0, lt=1)

    def torch_optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        return TorchSGD(groups, lr=self.lr, momentum=self.gamma, fused=True)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        buffer = start(state, "buffer", gradient).mul_(self.gamma).add_(gradient)
        state["buffer"] = buffer
        return -lr * buffer


class Nesterov(FormulaTrick):
    """b ← γ·b + g; w ← w − η·(g + γ·b) (Nesterov, 1983; Sutskever et al., 2013).

    When it helps: where `torch_momentum` does; it is a little steadier where γ is large.
    """

    kind: Literal["nesterov"] = "nesterov"
    lr: Annotated[float, Float(1e-3, 0.5, log=True)] = Field(0.05, gt=0)
    gamma: Annotated[float, OneMinus(5e-3, 0.3)] = Field(0.9, ge=0, lt=1)

    def torch_optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        return TorchSGD(groups, lr=self.lr, momentum=self.gamma, nesterov=self.gamma > 0, fused=True)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        buffer = start(state, "buffer", gradient).mul_(self.gamma).add_(gradient)
        state["buffer"] = buffer
        return -lr * (gradient + self.gamma * buffer)
