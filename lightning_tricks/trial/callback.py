"""The callback that lets a trial report, stop, and resume after a crash."""

import copy
import math
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from lightning_tricks.data.loaders import seed_loaders
from lightning_tricks.errors import one_line
from lightning_tricks.module.health import Diverged
from lightning_tricks.module.lightning_internals import begin_batches_anew, check_not_cut_short
from lightning_tricks.scores import LOSS, monitored
from lightning_tricks.seeds import derive, seed_generators
from lightning_tricks.trial.checkpoints import NEEDED, identity_of, read
from lightning_tricks.trial.result import Epoch, Interrupted, Paused
from lightning_tricks.trial.training import Training

CHECKPOINT_SECONDS = 1.0
"""Minimum seconds between two checkpoints, which are written at the end of an epoch."""
WRITING_SHARE = 0.1
"""Maximum share of the time spent on writing checkpoints."""


class TrialCallback(pl.Callback):
    """Report each epoch, stop when told to, and write the checkpoints.

    Args:
        training: the training to watch.
    """

    def __init__(self, training: Training) -> None:
        self.task, self.tricks, self.seed = training.task, training.tricks, training.seed
        self.report, self.interrupted = training.report, training.interrupted
        self.checkpoint, self.pause_after = training.checkpoint, training.pause_after
        self.identity = {} if self.checkpoint is None else identity_of(self.task, self.tricks, self.seed)
        """Identity that a checkpoint must have for this trial to resume from it."""
        self.epochs: list[Epoch] = []
        self.values: list[float] = []
        self.stopped = self.resuming = False
        self.warning = ""
        self.progress: dict[str, Any] = {}
        """Lightning's fit loop state at the end of the last epoch."""
        self.spent = 0.0
        self.start = self.written = time.perf_counter()
        self.interval = CHECKPOINT_SECONDS
        self.seed_all: Callable[[int], None] = seed_generators
        """Seeds an epoch."""

    @property
    def reached(self) -> int:
        """Number of the epoch after the last reported one."""
        return self.epochs[-1].number + 1 if self.epochs else 0

    @property
    def pausing(self) -> bool:
        """Whether it has reached the epoch after which it pauses."""
        more = self.reached < self.task.epochs and not self.stopped
        return more and self.pause_after is not None and self.reached > self.pause_after

    @property
    def seconds(self) -> float:
        """Training time so far in seconds, including the time before the checkpoint."""
        return self.spent + time.perf_counter() - self.start

    def saved(self) -> Path | None:
        """Return the checkpoint to resume from; None if there is none, or it is another trial's."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return None
        try:
            content = read(self.checkpoint)
            if lacking := NEEDED - content.keys():
                raise ValueError(f"it lacks {sorted(lacking)}")
            self.resuming = content["trial"]["identity"] == self.identity
        except Exception as error:  # torch raises various errors for a damaged file
            self.warning = f"its checkpoint cannot be read ({one_line(error)}): it started over"
        return self.checkpoint if self.resuming else None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        del trainer, pl_module
        # Epoch schedules step only after the end of an epoch, so the checkpoint is written later. But
        # Lightning can resume only from its progress at the end of the epoch.
        checkpoint["loops"]["fit_loop"] = self.progress
        checkpoint["trial"] = {
            "identity": self.identity,
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "values": self.values,
            "seconds": self.seconds,
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        del trainer, pl_module
        trial = checkpoint["trial"]
        self.epochs = [Epoch(**epoch) for epoch in trial["epochs"]]
        self.values, self.spent = list(trial["values"]), trial["seconds"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del pl_module
        for epoch in self.epochs:  # the caller may be new as well
            self._tell(trainer, epoch)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del pl_module
        if self.pausing:
            self.pause(trainer)
            raise Paused
        if self.progress:
            self._save(trainer)
        rank = f" on rank {trainer.global_rank}" if trainer.global_rank else ""
        seed = derive(self.seed, trainer.current_epoch, f"epoch{rank}")
        self.seed_all(seed)
        seed_loaders(trainer.train_dataloader, seed)
        if self.resuming:
            # Lightning has already made this epoch's iterator, from another random state.
            begin_batches_anew(trainer)
            self.resuming = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del pl_module
        check_not_cut_short(trainer)
        if self.checkpoint is not None:
            self.progress = copy.deepcopy(trainer.fit_loop.state_dict())

    def on_train_batch_start(self, *unused: Any) -> None:
        del unused
        self._look()

    def on_validation_batch_start(self, *unused: Any) -> None:
        del unused
        self._look()

    def _look(self) -> None:
        if self.interrupted():
            raise Interrupted

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_last_batch:
            return
        check_not_cut_short(trainer)
        value = monitored(trainer, self.task.monitor)
        if not math.isfinite(value):
            raise Diverged(f"{self.task.monitor} became {value}")
        self.values.append(value)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics.update(getattr(pl_module, "epoch_metrics", {}))  # the logged ones are an epoch old
        if self.task.plateau != self.task.monitor and self.task.plateau in metrics:
            metrics[LOSS] = metrics[self.task.plateau]  # breaks ties between equal scores
        metrics["lr"] = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        score = self.tricks.stopping.score(self.values, self.task.mode)
        self.epochs.append(Epoch(trainer.current_epoch, score, metrics))
        self._tell(trainer, self.epochs[-1])

    def _tell(self, trainer: pl.Trainer, epoch: Epoch) -> None:
        """Report an epoch; if it must stop, all processes of the trial stop together."""
        stop = trainer.strategy.broadcast(trainer.is_global_zero and self.report(epoch))
        if stop and epoch.number + 1 < self.task.epochs:
            self.stopped = trainer.should_stop = True

    def pause(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint to resume from later, unless training resumed only to pause at once."""
        if self.progress:
            self._save(trainer, now=True)

    def _save(self, trainer: pl.Trainer, *, now: bool = False) -> None:
        """Write a checkpoint if it is due, or now, atomically."""
        due = now or time.perf_counter() - self.written >= self.interval
        if not trainer.strategy.broadcast(due) or self.checkpoint is None:
            return
        begin = time.perf_counter()
        part = self.checkpoint.with_suffix(f".{secrets.token_hex(8)}.part")  # safe from planted links
        try:
            trainer.save_checkpoint(part)
            if trainer.is_global_zero:
                part.replace(self.checkpoint)
        except (OSError, RuntimeError) as error:  # such as a full disk
            if trainer.world_size > 1:
                raise
            with suppress(OSError):
                part.unlink(missing_ok=True)
            self.warning = f"a checkpoint could not be written: {one_line(error)}"
        self.written = time.perf_counter()
        self.interval = max(CHECKPOINT_SECONDS, (self.written - begin) / WRITING_SHARE)
