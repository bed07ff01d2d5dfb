"""Plain gradient descent, the reference for the others.

Its best learning rate is large, and depends on the loss and the norms: search several powers of ten.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from lightning_tricks.space.domains import Float
from lightning_tricks.tricks.optimizers.flat import State
from lightning_tricks.tricks.optimizers.formula import FormulaTrick, Number
from lightning_tricks.tricks.optimizers.kernels import TorchSGD


class SGD(FormulaTrick):
    """w ← w − η·g (Robbins and Monro, 1951).

    When it helps: as a control. It forgives little: inputs must be scaled, and the learning rate tuned.
    """

    neutral: ClassVar[bool] = True
    kind: Literal["sgd"] = "sgd"
    lr: Annotated[float, Float(1e-2, 1.0, log=True)] = Field(default=0.1, gt=0)

    def torch_optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        return TorchSGD(groups, lr=self.lr, fused=True)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        del state
        return -lr * gradient
