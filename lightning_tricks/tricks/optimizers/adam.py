"""Adam; with decoupled weight decay, AdamW.

η of 1e-3 to 3e-3 suits most small networks; for fine-tuning, use a tenth of that. With a few dozen
trials or more, 1 − β₁ is worth searching too; β₂ and ε hardly ever are.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from lightning_tricks.space.domains import Float, OneMinus
from lightning_tricks.tricks.optimizers.flat import State
from lightning_tricks.tricks.optimizers.formula import FormulaTrick, Number, average
from lightning_tricks.tricks.optimizers.kernels import TorchAdam


class Adam(FormulaTrick):
    """w ← w − η·m̂/(√v̂ + ε) with averages m of g and v of g² (Kingma and Ba, 2015).

    m̂ and v̂ are m and v divided by 1 − βᵗ. With decoupled weight decay it is AdamW.

    When it helps: as the first choice for a new task, because it is the least sensitive to its learning
    rate. On images, momentum with a tuned rate is as good.
    """

    elsewhere: ClassVar[Mapping[str, str]] = {"adamw": "adam with weight_decay decoupled"}
    kind: Literal["adam"] = "adam"
    lr: Annotated[float, Float(1e-4, 3e-2, log=True)] = Field(default=2e-3, gt=0)
    beta1: Annotated[float, OneMinus(0.02, 0.5)] = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)

    def torch_optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        return TorchAdam(
            groups, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.epsilon, fused=True
        )

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        step: int = state.get("step", 0) + 1
        state["step"] = step
        mean = average(state, "mean", gradient, self.beta1)
        square = average(state, "square", gradient * gradient, self.beta2)
        correction: Number = (1 - self.beta2**step) ** 0.5
        size = -lr * correction / (1 - self.beta1**step)
        return (mean / square.sqrt().add_(self.epsilon * correction)).mul_(size)
