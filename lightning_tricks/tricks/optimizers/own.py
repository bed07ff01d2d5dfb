"""The optimizer of a LightningModule, as its `configure_optimizers` says."""

from typing import Any, ClassVar, Literal

from torch import nn
from torch.optim import Optimizer

from lightning_tricks.errors import InputError
from lightning_tricks.tricks.optimizers.base import OptimizerTrick


class OwnOptimizer(OptimizerTrick):
    """What the `configure_optimizers` of a LightningModule returns.

    Its schedule is the module's own too, or there is none. Weight decay is what the optimizer has.

    When it helps: as what the other optimizers are compared with.
    """

    searched: ClassVar[bool] = False
    elementwise: ClassVar[bool] = False
    kind: Literal["own"] = "own"

    def build(self, groups: list[dict[str, Any]], module: nn.Module) -> Optimizer:
        raise InputError(
            f"optimizer 'own' is what a LightningModule configures (got {type(module).__name__})"
        )
