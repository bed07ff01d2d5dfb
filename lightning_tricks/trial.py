"""Train one trial: a record of tricks in, a result out. Knows neither Optuna nor MLflow.

What is random in an epoch follows from the trial's seed and the number of the epoch. A trial that
goes on from the checkpoint of any epoch therefore ends with the score that it would have had.
"""

import copy
import math
import secrets
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor

from lightning_tricks.checkpoints import PlainCheckpoints, read
from lightning_tricks.errors import InputError, in_a_line
from lightning_tricks.health import Diverged
from lightning_tricks.redaction import redacted
from lightning_tricks.scores import LOSS
from lightning_tricks.seeds import derive
from lightning_tricks.silence import SILENT, quiet
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

CHECKPOINT_SECONDS = 1.0
"""At the end of an epoch a checkpoint is written if the last is so old."""
WRITING_SHARE = 0.1
"""Writing them takes no larger share of the time than this."""

_NEEDED = {"trial", "state_dict", "loops", "callbacks", "optimizer_states", "lr_schedulers"}
"""What a checkpoint holds. Lightning would go on without some of these, to another score."""

State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Result:
    """How a trial ended."""

    state: State
    epochs: list[Epoch] = field(default_factory=list)
    reason: str = ""
    """Why it was pruned or failed, in a line."""
    trouble: str = ""
    """What went wrong beside, in a line."""
    traceback: str = ""
    diverged: bool = False
    """Whether it was pruned because something was not finite."""
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
    checkpoint: Path | None = None,
    devices: int = 1,
) -> Result:
    """Train one trial. The same task, tricks and seed give the same result on one machine.

    A loss, gradient or score that is not finite prunes the trial; an exception fails it.

    Args:
        task: what to train.
        tricks: how.
        seed: of everything that is random in it.
        report: hears of each epoch, those before the checkpoint included.
        interrupted: is asked before each batch.
        checkpoint: the file to write checkpoints to. If it holds one of this very trial, training
            goes on from there.
        devices: the number of processes that train it together, of which this is one.

    Raises:
        Interrupted: soon after `interrupted()` becomes true.
    """

    def watch() -> _Watcher:
        return _Watcher(task, tricks, seed, report, interrupted, checkpoint)

    watcher = watch()
    result = _fit(watcher, devices)
    if result.state == "failed" and watcher.resuming and checkpoint is not None:
        # It did not come to train: the checkpoint is not what it says.
        checkpoint.unlink(missing_ok=True)
        trouble = f"its checkpoint cannot be gone on from ({result.reason}): it began anew"
        result = replace(_fit(watch(), devices), trouble=trouble)
    if result.state == "failed" and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()  # others may share the device
    return result


def _fit(watcher: "_Watcher", devices: int) -> Result:
    """Train once, from the checkpoint if there is one."""
    task = watcher.task
    module = None
    state: State = "complete"
    reason = trace = ""
    diverged = False
    with quiet():
        saved = watcher.saved()
        pl.seed_everything(watcher.seed, verbose=False)
        try:
            module = task.module(watcher.tricks)
            module.logs_training = False  # the watcher reads it from the module
            _trainer(task, watcher, devices).fit(
                module, datamodule=task.data, ckpt_path=saved, weights_only=True
            )
            if watcher.stopped:
                state, reason = "pruned", stopped_after(watcher.epochs)
            elif not watcher.epochs:
                raise InputError(f"no validation was run, so {task.monitor} has no value")
        except Diverged as error:
            state, reason = "pruned", f"{error} (epoch {watcher.reached + 1})"
            diverged = True
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            # Lightning turns a signal into `SystemExit`.
            if isinstance(error, Interrupted) or watcher.interrupted():
                raise Interrupted from None
            state, reason = "failed", f"{type(error).__name__}: {in_a_line(error)}"
            trace = redacted(traceback.format_exc())
        finally:
            task.data.trainer = None  # which holds the module and all that it refers to
    return Result(
        state=state,
        epochs=watcher.epochs,
        reason=reason,
        trouble=watcher.trouble,
        traceback=trace,
        diverged=diverged,
        parameters=0 if module is None else _size(module),
        seconds=watcher.seconds,
        weights={} if module is None else module.state_dict(),
    )


def stopped_after(epochs: Sequence[Epoch]) -> str:
    """Say in words when the pruner stopped a trial."""
    return f"the pruner stopped it after epoch {epochs[-1].number + 1}"


def _trainer(task: Task, watcher: "_Watcher", devices: int) -> pl.Trainer:
    defaults = {
        **SILENT,
        "devices": devices,
        "strategy": "auto" if devices == 1 else "ddp",
        "num_sanity_val_steps": 0,
        # Slurm's environment, say, is not about a trial.
        "plugins": [LightningEnvironment(), PlainCheckpoints()],
        # On a GPU, the same seed gives the same bits only if torch is asked for it.
        "deterministic": "warn" if torch.cuda.is_available() else None,
    }
    return pl.Trainer(**{**defaults, **task.trainer}, max_epochs=task.epochs, callbacks=[watcher])


class _Watcher(pl.Callback):
    """Report each epoch, stop when told to, and write the checkpoints."""

    def __init__(
        self,
        task: Task,
        tricks: Tricks,
        seed: int,
        report: Report,
        interrupted: Callable[[], bool],
        checkpoint: Path | None,
    ) -> None:
        self.task, self.tricks, self.seed = task, tricks, seed
        self.report, self.interrupted, self.checkpoint = report, interrupted, checkpoint
        self.identity = {} if checkpoint is None else _identity(task, tricks, seed)
        """What a checkpoint must be of, for this trial to go on from it."""
        self.epochs: list[Epoch] = []
        self.values: list[float] = []
        self.stopped = self.resuming = False
        self.trouble = ""
        self.progress: dict[str, Any] = {}
        """Lightning's, at the end of the last epoch."""
        self.spent = 0.0
        self.start = self.written = time.perf_counter()
        self.interval = CHECKPOINT_SECONDS

    @property
    def reached(self) -> int:
        """The number of the epoch after the last that was reported."""
        return self.epochs[-1].number + 1 if self.epochs else 0

    @property
    def seconds(self) -> float:
        """How long the trial has been trained, before its checkpoint too."""
        return self.spent + time.perf_counter() - self.start

    def saved(self) -> Path | None:
        """Return the checkpoint to go on from; None if there is none, or one of another trial."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return None
        try:
            content = read(self.checkpoint)
            if lacking := _NEEDED - content.keys():
                raise ValueError(f"it lacks {sorted(lacking)}")
            self.resuming = content["trial"]["identity"] == self.identity
        except Exception as error:  # torch raises many for a file that is damaged
            self.trouble = f"its checkpoint cannot be read ({in_a_line(error)}): it began anew"
        return self.checkpoint if self.resuming else None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        del trainer, pl_module
        # Schedules of epochs take their step only after the end of an epoch, while Lightning can go
        # on from its own progress as it was then.
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
        for epoch in self.epochs:  # whoever runs the trial may be new as well
            self._tell(trainer, epoch)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del pl_module
        if self.progress:
            self._save(trainer)
        rank = f" on rank {trainer.global_rank}" if trainer.global_rank else ""
        pl.seed_everything(derive(self.seed, trainer.current_epoch, f"epoch{rank}"), verbose=False)
        if self.resuming:
            # Lightning made the iterator of this epoch before, from another random state.
            iter(trainer.fit_loop._data_fetcher or ())
            self.resuming = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del pl_module
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
        value = monitored(trainer, self.task.monitor)
        if not math.isfinite(value):
            raise Diverged(f"{self.task.monitor} became {value}")
        self.values.append(value)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics.update(getattr(pl_module, "epoch_metrics", {}))  # those logged are an epoch old
        if self.task.plateau != self.task.monitor and self.task.plateau in metrics:
            metrics[LOSS] = metrics[self.task.plateau]  # by which equal scores are told apart
        metrics["lr"] = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        score = self.tricks.stopping.score(self.values, self.task.mode)
        self.epochs.append(Epoch(trainer.current_epoch, score, metrics))
        self._tell(trainer, self.epochs[-1])

    def _tell(self, trainer: pl.Trainer, epoch: Epoch) -> None:
        """Report an epoch; all processes of the trial stop together, or none."""
        stop = trainer.strategy.broadcast(trainer.is_global_zero and self.report(epoch))
        if stop and epoch.number + 1 < self.task.epochs:
            self.stopped = trainer.should_stop = True

    def _save(self, trainer: pl.Trainer) -> None:
        """Write a checkpoint, in one piece or not at all, if it is time for it."""
        due = self.checkpoint is not None and time.perf_counter() - self.written >= self.interval
        if not trainer.strategy.broadcast(due) or self.checkpoint is None:
            return
        begin = time.perf_counter()
        part = self.checkpoint.with_suffix(f".{secrets.token_hex(8)}.part")  # a link is not followed
        try:
            trainer.save_checkpoint(part)
            if trainer.is_global_zero:
                part.replace(self.checkpoint)
        except (OSError, RuntimeError) as error:  # no space, say
            if trainer.world_size > 1:
                raise
            with suppress(OSError):
                part.unlink(missing_ok=True)
            self.trouble = f"a checkpoint could not be written: {in_a_line(error)}"
        self.written = time.perf_counter()
        self.interval = max(CHECKPOINT_SECONDS, (self.written - begin) / WRITING_SHARE)


def _identity(task: Task, tricks: Tricks, seed: int) -> dict[str, Any]:
    return {
        "task": task.name,
        "epochs": task.epochs,
        "record": tricks.model_dump(),
        "seed": seed,
        "fingerprint": task.fingerprint,
    }


def _size(module: pl.LightningModule) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
