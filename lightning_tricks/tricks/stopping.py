"""Early stopping, which leaves the best weights in the module.

In a search, the pruner compares trials with each other; patience compares a trial with itself. Both
use the same number: the score that the trial would have if it stopped now.
"""

import math
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import pytorch_lightning as pl
from pydantic import Field

from lightning_tricks.scores import Mode, best, is_better, monitored
from lightning_tricks.space.domains import Float
from lightning_tricks.space.trick import Trick
from lightning_tricks.surgery.replace import load_whole
from lightning_tricks.surgery.torch_internals import cloned
from lightning_tricks.tricks.length import epochs_of


class StoppingTrick(Trick):
    """When training ends before its budget does."""

    def callback(self, monitor: str, mode: Mode) -> "BestWeights | None":
        """Return the Lightning callback that stops training; None if none is needed."""
        del monitor, mode
        return None

    @abstractmethod
    def score(self, history: Sequence[float], mode: Mode) -> float:
        """Return the score of the weights that training would leave if it ended now."""


class NoStopping(StoppingTrick):
    """Training uses the whole budget and keeps the last weights."""

    neutral: ClassVar[bool] = True
    kind: Literal["none"] = "none"

    def score(self, history: Sequence[float], mode: Mode) -> float:
        del mode
        return history[-1]


class Patience(StoppingTrick):
    """Stops after `patience` without a new best epoch, and restores the best one (Prechelt, 1998).

    `patience` is a share of the budget, at least one epoch. Below a fifth, it cuts off schedules that
    gain late, such as cosine. A search proposes it only on request: the best of many epochs is partly
    luck, so its score would beat recipes that are just as good.

    When it helps: in a final run without a pruner, where long training overfits.
    """

    searched: ClassVar[bool] = False
    kind: Literal["patience"] = "patience"
    patience: Annotated[float, Float(0.2, 0.4)] = Field(default=0.3, gt=0, le=1)

    def callback(self, monitor: str, mode: Mode) -> "BestWeights":
        return BestWeights(self.patience, monitor, mode)

    def score(self, history: Sequence[float], mode: Mode) -> float:
        return best(history, mode)


Stopping = NoStopping | Patience


class BestWeights(pl.Callback):
    """Keep the weights of the best epoch, stop when it is too long ago, and restore them.

    Validations in the middle of an epoch do not count, because the score ignores them too.
    """

    def __init__(self, patience: float, monitor: str, mode: Mode) -> None:
        self.patience, self.monitor, self.mode = patience, monitor, mode
        self.best: float | None = None
        self.best_epoch = self.last_epoch = 0
        self.weights: Mapping[str, Any] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_last_batch:
            return
        score = monitored(trainer, self.monitor)
        better = self.best is None or is_better(score, self.best, self.mode)
        if better and math.isfinite(score):
            self.best, self.best_epoch = score, trainer.current_epoch
            self.weights = cloned(pl_module.state_dict())  # with everything that it carries
        self.last_epoch = trainer.current_epoch
        self._look(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del pl_module
        self._look(trainer)  # the checkpoint may be from the end of the last epoch

    def _look(self, trainer: pl.Trainer) -> None:
        waited = self.last_epoch - self.best_epoch
        if waited >= max(round(self.patience * epochs_of(trainer)), 1):
            trainer.should_stop = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # After `on_train_end`, where the average replaces the weights.
        if self.weights:
            load_whole(pl_module, self.weights)
        else:
            warnings.warn(
                "stopping 'patience' did nothing: no validation at the end of an epoch gave "
                f"{self.monitor} a finite value (val_check_interval is {trainer.val_check_interval})",
                stacklevel=2,
            )

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "last_epoch": self.last_epoch,
            "weights": self.weights,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
        self.last_epoch, self.weights = state_dict["last_epoch"], state_dict["weights"]
