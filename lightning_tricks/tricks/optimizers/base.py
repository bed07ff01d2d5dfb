"""What an optimizer trick is; most are formulas, which `formula.py` drives."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import pytorch_lightning as pl
from torch import nn
from torch.optim import Optimizer

from lightning_tricks.space.trick import Trick


class OptimizerTrick(Trick):
    """How a gradient changes the weights."""

    elementwise: ClassVar[bool] = True
    """Whether the step of a weight follows from its own gradients alone, whatever tensor it is in."""
    kind: str
    if TYPE_CHECKING:  # each kind that has one declares it, with its domain
        lr: float

    @abstractmethod
    def build(self, groups: list[dict[str, Any]], module: nn.Module) -> Optimizer:
        """Return the optimizer of a module.

        Args:
            groups: its parameters, as `WeightDecayTrick.groups` splits them.
            module: the module.

        Raises:
            InputError: if the module has no parameters of the kind that it is for.
        """

    def callback(self) -> pl.Callback | None:
        """Return the Lightning callback that it needs; None where it needs none."""
        return None
