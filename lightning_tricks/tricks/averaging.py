"""Weight averaging: validation, checkpoints and the score use the averaged weights.

Until the average begins, they use the weights themselves. Before each validation, the batch-norm
statistics are recomputed with the averaged weights, on the first batches of the epoch.
"""

from abc import abstractmethod
from typing import Annotated, Any, ClassVar, Literal

import pytorch_lightning as pl
import torch
from pydantic import Field
from torch import Tensor, nn

from lightning_tricks.space.domains import Float
from lightning_tricks.space.trick import Trick
from lightning_tricks.surgery.batch_norm import refresh_statistics
from lightning_tricks.surgery.replace import load_whole
from lightning_tricks.surgery.torch_internals import (
    BatchNormLayer,
    cloned,
    foreach_copy_,
    foreach_lerp_,
)
from lightning_tricks.tricks.length import epochs_of


class AveragingTrick(Trick):
    """Which average of the weights over training is used."""

    needs_steps: ClassVar[bool] = False
    """Whether it needs to know the number of steps of the whole budget."""
    kind: str

    def callback(self) -> "WeightAveraging | None":
        """Return the Lightning callback that averages; None if there is nothing to average."""
        return WeightAveraging(self)

    @abstractmethod
    def weight(self, updates: int, epoch: float, epochs: int, steps: int) -> float:
        """Return the share of the current weights in the average; 0 leaves the average unchanged.

        Args:
            updates: the number of earlier updates of the average.
            epoch: the epochs done; a whole number at the end of an epoch.
            epochs: the number of epochs of the whole budget.
            steps: the number of optimizer steps of the whole budget.
        """


class NoAveraging(AveragingTrick):
    """No average: the last weights are used."""

    neutral: ClassVar[bool] = True
    kind: Literal["none"] = "none"

    def callback(self) -> None:
        return None

    def weight(self, updates: int, epoch: float, epochs: int, steps: int) -> float:
        del updates, epoch, epochs, steps
        return 0.0


class ExponentialAveraging(AveragingTrick):
    """a ← a + (w − a)/n after each step, where n is `horizon` (a share of the budget) in steps.

    The decay 1 − 1/n follows from the budget, because a fixed decay would outlast a short run. The
    first n steps are averaged evenly, so the initial weights fade (Polyak and Juditsky, 1992).

    When it helps: where weights still move a lot at the end: with constant or high learning rates, or
    small batches. It adds little to a schedule that ends at zero.
    """

    needs_steps: ClassVar[bool] = True
    kind: Literal["ema"] = "ema"
    horizon: Annotated[float, Float(0.01, 0.2, log=True)] = Field(default=0.05, gt=0, le=1)

    def weight(self, updates: int, epoch: float, epochs: int, steps: int) -> float:
        del epoch, epochs
        return max(1 / (updates + 1), 1 / max(self.horizon * steps, 1.0))


class StochasticWeightAveraging(AveragingTrick):
    """The mean of the weights at the end of each epoch from `start` on (Izmailov et al., 2018).

    `start` is a share of the budget. The last two epochs are always included, because a mean of one
    would change nothing.

    When it helps: in long runs whose learning rate is still high at the end. It adds little to a
    schedule that ends at zero.
    """

    kind: Literal["swa"] = "swa"
    start: Annotated[float, Float(0.5, 0.9)] = Field(default=0.75, ge=0, lt=1)

    def weight(self, updates: int, epoch: float, epochs: int, steps: int) -> float:
        del steps
        ends_epoch = epoch == round(epoch)
        begins = min(self.start * epochs, epochs - 2)
        return 1 / (updates + 1) if ends_epoch and epoch > begins else 0.0


Averaging = NoAveraging | ExponentialAveraging | StochasticWeightAveraging


class WeightAveraging(pl.Callback):
    """Average a module's weights, and swap the average in for validation and at the end of training.

    Only weights and batch-norm statistics are swapped. Other buffers, and other contents of a
    `state_dict`, stay as training left them.
    """

    def __init__(self, trick: AveragingTrick) -> None:
        self.trick = trick
        self.updates = 0
        self.steps = 0
        self.refreshed = 0
        """Number of updates when the batch-norm statistics were last recomputed."""
        self.other: list[Tensor] = []
        """The average; while the module holds the average, the training weights."""
        self.shown = False
        """Whether the module holds the average."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del trainer
        if self.updates:  # a checkpoint's tensors were read before the module moved to its device
            own = _tensors(pl_module)
            self.other = [value.to(like) for value, like in zip(self.other, own, strict=True)]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *unused: Any
    ) -> None:
        del unused
        if trainer.global_step == self.steps:
            return  # this batch only accumulated gradients
        self.steps = trainer.global_step
        total, epochs = int(trainer.estimated_stepping_batches), epochs_of(trainer)
        done = trainer.current_epoch + (1.0 if trainer.is_last_batch else 0.5)
        if weight := self.trick.weight(self.updates, done, epochs, total):
            self._update(pl_module, weight)

    @torch.no_grad()
    def _update(self, module: nn.Module, weight: float) -> None:
        if not self.updates:
            self.other = [value.clone() for value in _tensors(module)]
        weights = _weights(module)  # they come first in `other`
        foreach_lerp_(self.other[: len(weights)], weights, weight)
        self.updates += 1

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._show(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.shown and trainer.state.fn == "fit":
            self._exchange(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._show(trainer, pl_module)

    def _show(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Put the average into the module, if there is one, with fresh batch-norm statistics."""
        if not self.updates or self.shown:
            return
        self._exchange(module)
        if self.refreshed != self.updates:
            refresh_statistics(trainer, module)
            self.refreshed = self.updates

    @torch.no_grad()
    def _exchange(self, module: nn.Module) -> None:
        """Swap the average and the training weights."""
        held = _tensors(module)
        before = [value.clone() for value in held]
        foreach_copy_(held, self.other)
        self.other, self.shown = before, not self.shown

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        del trainer
        if not self.updates:
            return
        held = checkpoint["state_dict"]
        self._exchange(pl_module)
        other = cloned(pl_module.state_dict())  # with everything else that it carries
        self._exchange(pl_module)
        average, raw = (held, other) if self.shown else (other, held)
        checkpoint["state_dict"], checkpoint["raw_state_dict"] = average, raw

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn == "fit" and "raw_state_dict" in checkpoint:
            self.other = [value.clone() for value in _tensors(pl_module)]  # loaded by Lightning
            load_whole(pl_module, checkpoint["raw_state_dict"])

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "steps": self.steps, "refreshed": self.refreshed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.updates, self.steps = state_dict["updates"], state_dict["steps"]
        self.refreshed = state_dict["refreshed"]


def _weights(module: nn.Module) -> list[Tensor]:
    """Return the parameters that can be averaged, each once even if it has several names."""
    return [p.detach() for p in module.parameters() if p.is_floating_point() or p.is_complex()]


def _tensors(module: nn.Module) -> list[Tensor]:
    """Return the tensors that the average replaces: weights first, then batch-norm statistics."""
    norms = (m for m in module.modules() if isinstance(m, BatchNormLayer))
    return [*_weights(module), *(b for norm in norms for b in norm.buffers(recurse=False))]
