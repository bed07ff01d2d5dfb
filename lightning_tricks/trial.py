"""Train one trial: a record of tricks in, a result out. Knows neither Optuna nor MLflow."""

import logging
import math
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_tricks.errors import InputError, in_a_line
from lightning_tricks.health import Diverged
from lightning_tricks.task import Task
from lightning_tricks.tricks import Tricks
from lightning_tricks.tricks.stopping import monitored


@dataclass(frozen=True)
class Epoch:
    """What a trial reports at the end of an epoch."""

    number: int
    """From 0 on."""
    score: float
    """The score that the trial would have if it stopped now."""
    metrics: Mapping[str, float]


Report = Callable[[Epoch], bool]
"""Takes an epoch; returns whether to stop. The one seam between a trial and whoever runs it."""

SILENT: Mapping[str, Any] = {
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
"""Arguments of a Trainer that writes nothing and prints nothing."""

State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Result:
    """How a trial ended."""

    state: State
    epochs: list[Epoch] = field(default_factory=list)
    reason: str = ""
    """Why it was pruned or failed, in a line."""
    traceback: str = ""
    parameters: int = 0
    """The number of trainable parameters."""
    seconds: float = 0.0
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    """The state of the module, as it is scored."""

    @property
    def score(self) -> float | None:
        """The score of the weights; None if there is none."""
        return self.epochs[-1].score if self.epochs else None


class Interrupted(Exception):
    """The trial was told to leave at once; it has no result."""


def train(
    task: Task,
    tricks: Tricks,
    seed: int,
    report: Report = lambda epoch: False,
    interrupted: Callable[[], bool] = lambda: False,
) -> Result:
    """Train one trial. The same task, tricks and seed give the same result on one machine.

    A loss, gradient or score that is not finite prunes the trial; an exception fails it.

    Raises:
        Interrupted: soon after `interrupted()` becomes true.
    """
    start = time.perf_counter()
    watcher = _Watcher(task, tricks, report, interrupted)
    module = None
    state: State = "complete"
    reason = trace = ""
    with quiet():
        pl.seed_everything(seed, verbose=False)
        try:
            module = task.module(tricks)
            module.logs_training = False  # the watcher reads it from the module
            _trainer(task, watcher).fit(module, datamodule=task.data)
            if watcher.stopped:
                state, reason = "pruned", f"the pruner stopped it after epoch {watcher.count}"
            elif not watcher.epochs:
                raise InputError(f"no validation was run, so {task.monitor} has no value")
        except Diverged as error:
            state, reason = "pruned", f"{error} (epoch {watcher.count + 1})"
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            # Lightning turns a signal into `SystemExit`.
            if isinstance(error, Interrupted) or interrupted():
                raise Interrupted from None
            state, reason = "failed", f"{type(error).__name__}: {in_a_line(error)}"
            trace = traceback.format_exc()
    return Result(
        state=state,
        epochs=watcher.epochs,
        reason=reason,
        traceback=trace,
        parameters=0 if module is None else _size(module),
        seconds=time.perf_counter() - start,
        weights={} if module is None else module.state_dict(),
    )


def _trainer(task: Task, watcher: "_Watcher") -> pl.Trainer:
    defaults = {
        **SILENT,
        "num_sanity_val_steps": 0,
        # On a GPU, the same seed gives the same bits only if torch is asked for it.
        "deterministic": "warn" if torch.cuda.is_available() else None,
    }
    return pl.Trainer(**{**defaults, **task.trainer}, max_epochs=task.epochs, callbacks=[watcher])


class _Watcher(pl.Callback):
    """Report each epoch, and stop when told to."""

    def __init__(
        self, task: Task, tricks: Tricks, report: Report, interrupted: Callable[[], bool]
    ) -> None:
        self.task, self.tricks = task, tricks
        self.report, self.interrupted = report, interrupted
        self.epochs: list[Epoch] = []
        self.values: list[float] = []
        self.stopped = False

    @property
    def count(self) -> int:
        """The number of epochs done."""
        return len(self.epochs)

    def on_train_batch_start(self, *unused: Any) -> None:
        del unused
        if self.interrupted():
            raise Interrupted

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_last_batch:
            return
        value = monitored(trainer, self.task.monitor)
        if not math.isfinite(value):
            raise Diverged(f"{self.task.monitor} became {value}")
        self.values.append(value)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics.update(getattr(pl_module, "epoch_metrics", {}))  # those logged are an epoch old
        metrics["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        score = self.tricks.stopping.score(self.values, self.task.mode)
        self.epochs.append(Epoch(trainer.current_epoch, score, metrics))
        last = self.count >= self.task.epochs
        if self.report(self.epochs[-1]) and not last:
            self.stopped = trainer.should_stop = True


def _size(module: pl.LightningModule) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning from printing its several lines about each fit."""
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Advice about workers and devices, and torch's own deprecations inside Lightning.
            warnings.filterwarnings("ignore", module=r"pytorch_lightning\..*")
            yield
    finally:
        logger.setLevel(level)
