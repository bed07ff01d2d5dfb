"""The LightningModule's own optimizer."""

from typing import Any, ClassVar, Literal

from torch import nn
from torch.optim import Optimizer

from lightning_tricks.errors import InputError
from lightning_tricks.tricks.optimizers.base import OptimizerTrick


class OwnOptimizer(OptimizerTrick):
    """The optimizer that the LightningModule's `configure_optimizers` returns.

    The schedule is the module's own too, or there is none. Weight decay is the optimizer's own.

    When it helps: as the reference for the other optimizers.
    """

    searched: ClassVar[bool] = False
    elementwise: ClassVar[bool] = False
    kind: Literal["own"] = "own"

    def build(self, groups: list[dict[str, Any]], module: nn.Module) -> Optimizer:
        raise InputError(
            f"optimizer 'own' needs a LightningModule that configures it (got {type(module).__name__})"
        )
