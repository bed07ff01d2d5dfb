"""Lion: steps by the sign alone.

Divide Adam's η by three to ten, and multiply its weight decay by the same number.
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from lightning_tricks.space.domains import Float, OneMinus
from lightning_tricks.tricks.optimizers.flat import State
from lightning_tricks.tricks.optimizers.formula import FormulaTrick, Number, average, start


class Lion(FormulaTrick):
    """c ← β₁·m + (1 − β₁)·g; w ← w − η·sign(c); m ← β₂·m + (1 − β₂)·g (Chen et al., 2023).

    A step is three to ten times as long as Adam's at the same η. So η must be smaller, and the
    decoupled weight decay larger by the same factor.

    When it helps: in long runs with large batches. It keeps one number per weight, Adam keeps two.
    Small batches make its signs noisy.
    """

    kind: Literal["lion"] = "lion"
    lr: Annotated[float, Float(3e-5, 3e-3, log=True)] = Field(default=3e-4, gt=0)
    beta1: Annotated[float, OneMinus(0.02, 0.5)] = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.99, ge=0, lt=1)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        mean = start(state, "mean", gradient)
        direction = (mean * self.beta1 + gradient * (1 - self.beta1)).sign()
        average(state, "mean", gradient, self.beta2)
        return -lr * direction
