"""RMSProp: Adagrad that forgets.

The average of squares begins at zero, so the first steps are 1/√(1 − ρ) times too long: use a warm-up,
or a smaller η than Adam's.
"""

from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from lightning_tricks.space.domains import Float, OneMinus
from lightning_tricks.tricks.optimizers.flat import State
from lightning_tricks.tricks.optimizers.formula import FormulaTrick, Number, average
from lightning_tricks.tricks.optimizers.kernels import TorchRMSprop


class RMSProp(FormulaTrick):
    """s ← ρ·s + (1 − ρ)·g²; w ← w − η·g/(√s + ε) (Hinton, 2012; ε outside the root, as torch).

    When it helps: in recurrent networks, and on tasks that change over time.
    """

    kind: Literal["rmsprop"] = "rmsprop"
    lr: Annotated[float, Float(1e-4, 1e-2, log=True)] = Field(default=1e-3, gt=0)
    rho: Annotated[float, OneMinus(1e-3, 0.3)] = Field(default=0.99, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)

    def torch_optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        return TorchRMSprop(groups, lr=self.lr, alpha=self.rho, eps=self.epsilon, foreach=True)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        square = average(state, "square", gradient * gradient, self.rho)
        return -lr * gradient / (square.sqrt() + self.epsilon)
