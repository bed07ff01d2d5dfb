"""Adagrad: steps that shrink where gradients were large.

The sum of squares only grows. So η may be ten times that of RMSProp, and needs less decay.
"""

from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from lightning_tricks.space.domains import Float
from lightning_tricks.tricks.optimizers.flat import State
from lightning_tricks.tricks.optimizers.formula import FormulaTrick, Number, start
from lightning_tricks.tricks.optimizers.kernels import TorchAdagrad


class Adagrad(FormulaTrick):
    """s ← s + g²; w ← w − η·g/(√s + ε), coordinate by coordinate (Duchi et al., 2011).

    When it helps: where some inputs are rare, such as words. Steps can only shrink, so long runs come to
    a halt.
    """

    kind: Literal["adagrad"] = "adagrad"
    lr: Annotated[float, Float(3e-3, 0.3, log=True)] = Field(default=0.03, gt=0)
    epsilon: float = Field(default=1e-10, gt=0)

    def torch_optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        return TorchAdagrad(groups, lr=self.lr, eps=self.epsilon, foreach=True)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        total = start(state, "sum", gradient).addcmul_(gradient, gradient)
        state["sum"] = total
        return -lr * gradient / (total.sqrt() + self.epsilon)
