"""One training through Lightning: a recipe in, a result out. Knows neither Optuna nor MLflow.

All randomness in an epoch follows from the trial's seed and the epoch's number. So a trial that resumes
from a checkpoint ends with the same score as one that was never interrupted.
"""

import copy
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch

from lightning_tricks.errors import InputError, TakenOver, is_interrupt, one_line
from lightning_tricks.flavors import STANDALONE, check_one_flavor, flavor_of
from lightning_tricks.module.health import Diverged
from lightning_tricks.module.hooks import TricksHooks
from lightning_tricks.module.tricks_module import TricksModule
from lightning_tricks.redaction import redacted
from lightning_tricks.task.quiet import quiet, silent_trainer
from lightning_tricks.task.task import Task
from lightning_tricks.trial.callback import TrialCallback
from lightning_tricks.trial.checkpoints import PlainCheckpoints
from lightning_tricks.trial.result import Interrupted, Paused, Result, stopped_after
from lightning_tricks.trial.training import Training
from lightning_tricks.tricks.recipe import Tricks


def fit(training: Training, devices: int = 1) -> Result:
    """Return the result of one training with Lightning's Trainer.

    A loss, gradient or score that is not finite prunes it; an exception fails it.

    Args:
        training: the training to do.
        devices: the number of processes that do it together, including this one.

    Raises:
        Interrupted: soon after `training.interrupted()` becomes true.
    """
    own = training.with_own_split()
    watcher = TrialCallback(own)
    result = _fit(watcher, devices)
    if result.state == "failed" and watcher.resuming and own.checkpoint is not None:
        # It failed before training began: the checkpoint does not fit.
        own.checkpoint.unlink(missing_ok=True)
        warning = f"it cannot resume from its checkpoint ({result.reason}): it started over"
        result = replace(_fit(TrialCallback(own), devices), warning=warning)
    result = _in_parts(result, own.tricks, lambda parts: _fit(TrialCallback(own), devices, parts))
    if result.state == "failed" and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()  # others may share the device
    return result


def _in_parts(result: Result, tricks: Tricks, again: Callable[[int], Result]) -> Result:
    """Return a trial's result; if batches do not fit in memory, train again with batches in parts.

    Args:
        result: the result with whole batches.
        tricks: the trial's recipe.
        again: trains the trial with batches in this number of parts.
    """
    size, parts = getattr(tricks.batch, "size", 1), 1
    while result.reason.startswith(torch.OutOfMemoryError.__name__) and parts < size:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()
        parts *= 2
        result = again(parts)
        said = f"batches of {size} do not fit in memory: the gradients of {parts} parts are added up"
        result = replace(result, warning="; ".join(filter(None, (result.warning, said))))
    return result


def _fit(watcher: TrialCallback, devices: int, parts: int = 1) -> Result:
    """Train once, from the checkpoint if there is one."""
    module: pl.LightningModule | None = None
    task = watcher.task
    with quiet():
        saved = watcher.saved()
        pl.seed_everything(watcher.seed, verbose=False)
        try:
            task = task.of_recipe(watcher.tricks, parts)
            module = task.module(watcher.tricks)
            if isinstance(module, TricksHooks):
                module.logs_training = False  # the watcher reads it from the module
            trainer, data = trainer_of(task, devices, [watcher], module), task.data_of(module)
            trainer.fit(module, datamodule=data, ckpt_path=saved, weights_only=True)
            return result_of(watcher, module)
        except BaseException as error:  # the user's code may raise anything
            if isinstance(error, Interrupted) or watcher.interrupted():
                raise Interrupted from None
            if isinstance(error, TakenOver):
                raise
            if is_interrupt(error):
                raise KeyboardInterrupt from None
            return result_of(watcher, module, error)


def result_of(
    watcher: TrialCallback, module: pl.LightningModule | None, error: BaseException | None = None
) -> Result:
    """Return a trial's result.

    Args:
        watcher: the trial's callback.
        module: the trained module; None if it could not be made.
        error: the error that ended the training, if any.

    Raises:
        InputError: if no epoch was validated.
    """
    ending = _ending(watcher, error)
    return replace(
        ending,
        epochs=watcher.epochs,
        warning=watcher.warning,
        parameters=0 if module is None else _size(module),
        seconds=watcher.seconds,
        weights={} if module is None or ending.state == "paused" else module.state_dict(),
    )


def _ending(watcher: TrialCallback, error: BaseException | None = None) -> Result:
    """Return how training ended: normally, or by an error."""
    if isinstance(error, Diverged):
        return Result("pruned", reason=f"{error} (epoch {watcher.reached + 1})", diverged=True)
    if isinstance(error, Paused):
        return Result("paused")
    if error is not None:
        reason = f"{type(error).__name__}: {one_line(error)}"
        lines = "".join(traceback.format_exception(error))
        return Result("failed", reason=reason, traceback=redacted(lines))
    if watcher.stopped:
        return Result("pruned", reason=stopped_after(watcher.epochs))
    if not watcher.epochs:
        raise InputError(f"no validation was run, so {watcher.task.monitor} has no value")
    return Result("complete")


def trainer_of(
    task: Task,
    devices: int = 1,
    callbacks: Sequence[pl.Callback] = (),
    module: pl.LightningModule | None = None,
) -> pl.Trainer:
    """Return the Trainer of a trial.

    Args:
        task: the trial's task.
        devices: number of processes that train it together.
        callbacks: callbacks in addition to the task's.
        module: the module to train; the Trainer comes from the same Lightning package.

    Raises:
        MisconfigurationException: if the task asks for a device that does not exist.
    """
    flavor = STANDALONE if module is None else flavor_of(module)
    defaults: dict[str, Any] = {
        "devices": devices,
        "strategy": "auto" if devices == 1 else "ddp",
        # On a GPU, results repeat exactly only with this setting.
        "deterministic": "warn" if torch.cuda.is_available() else None,
        "max_epochs": task.epochs,
    }
    own = [copy.deepcopy(callback) for callback in task.callbacks]
    for callback in own:
        check_one_flavor(flavor, callback=callback)
    if module is None or isinstance(module, TricksModule):
        defaults["logger"] = False  # these modules need none
    if task.logger is not None:
        check_one_flavor(flavor, logger=task.logger)
        defaults["logger"] = copy.deepcopy(task.logger)
    return silent_trainer(
        flavor,
        callbacks=[*callbacks, *own],
        plugins=[PlainCheckpoints()],
        **{**defaults, **task.trainer},
    )


def _size(module: pl.LightningModule) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
