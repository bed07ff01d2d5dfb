"""Averaging of weights: what is validated, saved and scored is the average.

Until an average has begun, that is the weights themselves. Statistics of batch norm are gathered
again under the averaged weights, from the first batches of the epoch, before each validation.
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
from lightning_tricks.surgery.torch_internals import (
    BatchNormLayer,
    cloned,
    foreach_copy_,
    foreach_lerp_,
)


class AveragingTrick(Trick):
    """Which average of the weights over training is used."""

    needs_steps: ClassVar[bool] = False
    """Whether the number of steps of the whole budget must be known."""
    kind: str

    def callback(self) -> "WeightAveraging | None":
        """Return the Lightning callback that averages; None where there is nothing to do."""
        return WeightAveraging(self)

    @abstractmethod
    def weight(self, updates: int, epoch: float, epochs: int, steps: int) -> float:
        """Return the weight of the present weights in the average; 0 leaves it as it is.

        Args:
            updates: how often the average was updated before.
            epoch: epochs done; a whole number at the end of an epoch.
            epochs: the number of epochs of the whole budget.
            steps: the number of optimizer steps of the whole budget.
        """


class NoAveraging(AveragingTrick):
    """The last weights."""

    neutral: ClassVar[bool] = True
    kind: Literal["none"] = "none"

    def callback(self) -> None:
        return None

    def weight(self, updates: int, epoch: float, epochs: int, steps: int) -> float:
        del updates, epoch, epochs, steps
        return 0.0


class ExponentialAveraging(AveragingTrick):
    """a ← a + (w − a)/n after each step, where n is `horizon` (a share of the budget) in steps.

    The decay 1 − 1/n follows from the budget: a fixed one outlasts a short run. The first n steps
    are averaged evenly, so that the initial weights fade (Polyak and Juditsky, 1992).

    When it helps: where weights still move a lot at the end: constant or high learning rates, small
    batches. It adds little to a schedule that ends at zero.
    """

    needs_steps: ClassVar[bool] = True
    kind: Literal["ema"] = "ema"
    horizon: Annotated[float, Float(0.01, 0.2, log=True)] = Field(0.05, gt=0, le=1)

    def weight(self, updates: int, epoch: float, epochs: int, steps: int) -> float:
        del epoch, epochs
        return max(1 / (updates + 1), 1 / max(self.horizon * steps, 1.0))


class StochasticWeightAveraging(AveragingTrick):
    """The mean of the weights at the end of each epoch from `start` on (Izmailov et al., 2018).

    `start` is a share of the budget. The last epoch is always among them.

    When it helps: in long runs whose learning rate is still high at the end. It adds little to a
    schedule that ends at zero.
    """

    kind: Literal["swa"] = "swa"
    start: Annotated[float, Float(0.5, 0.9)] = Field(0.75, ge=0, lt=1)

    def weight(self, updates: int, epoch: float, epochs: int, steps: int) -> float:
        del steps
        ends_epoch = epoch == round(epoch)
        return 1 / (updates + 1) if ends_epoch and epoch > self.start * epochs else 0.0


Averaging = NoAveraging | ExponentialAveraging | StochasticWeightAveraging


class WeightAveraging(pl.Callback):
    """Keep the average of a module's weights, and put it in their place whenever they count.

    Tensors change places, and nothing else: neither what a `state_dict` carries beside them, nor
    buffers other than the statistics of batch norm, which are as training left them.
    """

    def __init__(self, trick: AveragingTrick) -> None:
        self.trick = trick
        self.updates = 0
        self.steps = 0
        self.refreshed = 0
        """The number of updates when the statistics of batch norm were last gathered."""
        self.other: list[Tensor] = []
        """The average; while the module holds that, the weights in training."""
        self.shown = False
        """Whether the module holds the average."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del trainer
        if self.updates:  # those of a checkpoint were read before the module went to its device
            own = _tensors(pl_module)
            self.other = [value.to(like) for value, like in zip(self.other, own, strict=True)]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *unused: Any
    ) -> None:
        del unused
        if trainer.global_step == self.steps:
            return  # gradients were accumulated only
        self.steps = trainer.global_step
        total, epochs = int(trainer.estimated_stepping_batches), trainer.max_epochs or 1
        done = trainer.current_epoch + (1.0 if trainer.is_last_batch else 0.5)
        if weight := self.trick.weight(self.updates, done, epochs, total):
            self._update(pl_module, weight)

    @torch.no_grad()
    def _update(self, module: nn.Module, weight: float) -> None:
        if not self.updates:
            self.other = [value.clone() for value in _tensors(module)]
        weights = _weights(module)  # which come first
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
        """Put the average into the module and the weights in training aside, or back."""
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
        other = cloned(pl_module.state_dict())  # with all that it carries beside tensors
        self._exchange(pl_module)
        average, raw = (held, other) if self.shown else (other, held)
        checkpoint["state_dict"], checkpoint["raw_state_dict"] = average, raw

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn == "fit" and "raw_state_dict" in checkpoint:
            self.other = [value.clone() for value in _tensors(pl_module)]  # Lightning has put it there
            pl_module.load_state_dict(checkpoint["raw_state_dict"])

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "steps": self.steps, "refreshed": self.refreshed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.updates, self.steps = state_dict["updates"], state_dict["steps"]
        self.refreshed = state_dict["refreshed"]


def _weights(module: nn.Module) -> list[Tensor]:
    """Return the parameters that can be averaged, each once, by however many names it goes."""
    return [p.detach() for p in module.parameters() if p.is_floating_point() or p.is_complex()]


def _tensors(module: nn.Module) -> list[Tensor]:
    """Return what the average has of its own: weights first, then the statistics of batch norm."""
    norms = (m for m in module.modules() if isinstance(m, BatchNormLayer))
    return [*_weights(module), *(b for norm in norms for b in norm.buffers(recurse=False))]
