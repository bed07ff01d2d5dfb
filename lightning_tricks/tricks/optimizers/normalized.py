"""Gradient descent with steps of one length.

η is that length, whatever the scale of the loss. Unless η decays, the weights never settle.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from lightning_tricks.space.domains import Choice, Float
from lightning_tricks.surgery.torch_internals import foreach_norm
from lightning_tricks.tricks.optimizers.flat import State
from lightning_tricks.tricks.optimizers.formula import FormulaTrick, Number


class NormalizedSGD(FormulaTrick):
    """w ← w − η·g/(‖g‖ + ε) (Hazan et al., 2015). Some courses call it Adagrad.

    `scope` says whether the norm is that of each parameter tensor or of all parameters. A step has the
    length η however small the gradient is.

    When it helps: where gradients vanish or explode by orders of magnitude, as in deep networks without
    norms.
    """

    elementwise: ClassVar[bool] = False
    kind: Literal["normalized_sgd"] = "normalized_sgd"
    lr: Annotated[float, Float(1e-2, 1.0, log=True)] = Field(default=0.1, gt=0)
    scope: Annotated[Literal["layer", "global"], Choice("layer", "global")] = "layer"
    epsilon: float = Field(default=1e-12, gt=0)

    def direct(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        norms = list(foreach_norm(list(gradients)))
        if self.scope == "global":
            norms = [torch.linalg.vector_norm(torch.stack(norms))] * len(norms)
        return [g / (norm + self.epsilon) for g, norm in zip(gradients, norms, strict=True)]

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        del state
        return -lr * gradient
