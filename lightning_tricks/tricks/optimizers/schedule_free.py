"""Schedule-free Adam."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytorch_lightning as pl
import torch
from pydantic import Field
from schedulefree import AdamWScheduleFree
from torch import nn
from torch.optim import Optimizer

from lightning_tricks.space.domains import Float, OneMinus
from lightning_tricks.surgery.batch_norm import refresh_statistics
from lightning_tricks.tricks.optimizers.base import OptimizerTrick
from lightning_tricks.tricks.optimizers.kernels import DECAYS
from lightning_tricks.tricks.optimizers.penalized import evaluate, penalize


class ScheduleFree(OptimizerTrick):
    """Adam at y = (1 − β₁)·z + β₁·x, where x averages the iterates z (Defazio et al., 2024).

    Uses `schedulefree.AdamWScheduleFree`. Validation, the score, the final weights and checkpoints
    saved after a validation use x, with batch-norm statistics recomputed for it. Use it with a constant
    schedule: x does the work of a schedule.

    When it helps: if the length of a run is not known. With a falling schedule, the same work is done
    twice.
    """

    kind: Literal["schedule_free"] = "schedule_free"
    lr: Annotated[float, Float(3e-4, 1e-1, log=True)] = Field(default=5e-3, gt=0)
    beta1: Annotated[float, OneMinus(0.02, 0.2)] = Field(default=0.9, gt=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    warmup_steps: int = Field(default=20, ge=0, le=10**9)

    def build(self, groups: list[dict[str, Any]], module: nn.Module) -> Optimizer:
        del module
        return ScheduleFreeOptimizer(groups, self)

    def callback(self) -> pl.Callback:
        return ShowAverage()


class ScheduleFreeOptimizer(AdamWScheduleFree):  # type: ignore[misc]  # it has no types
    """Schedule-free AdamW with the weight decays of a recipe."""

    def __init__(self, groups: list[dict[str, Any]], trick: ScheduleFree) -> None:
        full = [{**DECAYS, **group} for group in groups]
        super().__init__(
            [{**group, "weight_decay": group["decoupled"]} for group in full],
            lr=trick.lr,
            betas=(trick.beta1, trick.beta2),
            warmup_steps=trick.warmup_steps,
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group({**DECAYS, **param_group})  # a group added later has none

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; evaluates the closure first, with gradients enabled."""
        loss = evaluate(closure)
        for group in self.param_groups:
            penalize(group)
        super().step()
        return loss


class ShowAverage(pl.Callback):
    """Put the average x into the module for validation and at the end, and y back for training."""

    def on_train_batch_start(self, trainer: pl.Trainer, *unused: Any) -> None:
        # Not at the end of validation: other callbacks may still have their weights in the module.
        del unused
        for optimizer in trainer.optimizers:
            optimizer.train()  # type: ignore[attr-defined]

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._show(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._show(trainer, pl_module)

    def _show(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        training = any(g["train_mode"] for o in trainer.optimizers for g in o.param_groups)
        for optimizer in trainer.optimizers:
            optimizer.eval()  # type: ignore[attr-defined]
        if training:
            refresh_statistics(trainer, module)
