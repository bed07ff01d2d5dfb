"""The base class of optimizers. Most of them are formulas, see `formula.py`."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import pytorch_lightning as pl
from torch import nn
from torch.optim import Optimizer

from lightning_tricks.space.trick import Trick


class OptimizerTrick(Trick):
    """How a gradient changes the weights."""

    elementwise: ClassVar[bool] = True
    """Whether the step of a weight depends on its own gradients only, whatever tensor it is in."""
    kind: str
    if TYPE_CHECKING:  # each kind that has one declares it, with its domain
        lr: float

    @abstractmethod
    def build(self, groups: list[dict[str, Any]], module: nn.Module) -> Optimizer:
        """Return the optimizer of a module.

        Args:
            groups: the module's parameters, as `WeightDecayTrick.groups` splits them.
            module: the module.

        Raises:
            InputError: if the module has no parameters that this optimizer can train.
        """

    def callback(self) -> pl.Callback | None:
        """Return the Lightning callback that it needs; None if it needs none."""
        return None
