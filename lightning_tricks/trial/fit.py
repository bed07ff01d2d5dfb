"""One training through Lightning: a recipe of tricks in, a result out. Knows neither Optuna nor MLflow.

What is random in an epoch follows from the trial's seed and the number of the epoch. A trial that
goes on from the checkpoint of any epoch therefore ends with the score that it would have had.
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
from lightning_tricks.trial.result import Interrupted, Result, stopped_after
from lightning_tricks.trial.training import Training
from lightning_tricks.tricks.recipe import Tricks


def fit(training: Training, devices: int = 1) -> Result:
    """Do one training, through Lightning's Trainer.

    A loss, gradient or score that is not finite prunes it; an exception fails it.

    Args:
        training: what is to be done.
        devices: the number of processes that do it together, of which this is one.

    Raises:
        Interrupted: soon after it is to be dropped.
    """
    own = training.with_own_split()
    watcher = TrialCallback(own)
    result = _fit(watcher, devices)
    if result.state == "failed" and watcher.resuming and own.checkpoint is not None:
        # It did not come to train: the checkpoint is not what it says.
        own.checkpoint.unlink(missing_ok=True)
        warning = f"its checkpoint cannot be gone on from ({result.reason}): it began anew"
        result = replace(_fit(TrialCallback(own), devices), warning=warning)
    result = _in_parts(result, own.tricks, lambda parts: _fit(TrialCallback(own), devices, parts))
    if result.state == "failed" and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()  # others may share the device
    return result


def _in_parts(result: Result, tricks: Tricks, again: Callable[[int], Result]) -> Result:
    """Return the result of a trial; batches that the memory does not hold are taken in parts.

    Args:
        result: of the trial with whole batches.
        tricks: of the trial.
        again: trains it, given the number of parts.
    """
    size, parts = getattr(tricks.batch, "size", 1), 1
    while result.reason.startswith(torch.OutOfMemoryError.__name__) and parts < size:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()
        parts *= 2
        result = again(parts)
        said = f"batches of {size} do not fit the memory: the gradients of {parts} parts are added up"
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
    """Return what became of a trial.

    Args:
        watcher: the trial's.
        module: that was trained; None if it did not come to be.
        error: what was raised.

    Raises:
        InputError: if no epoch was validated.
    """
    return replace(
        _ending(watcher, error),
        epochs=watcher.epochs,
        warning=watcher.warning,
        parameters=0 if module is None else _size(module),
        seconds=watcher.seconds,
        weights={} if module is None else module.state_dict(),
    )


def _ending(watcher: TrialCallback, error: BaseException | None = None) -> Result:
    """Say how training ended: by itself, or by what was raised."""
    if isinstance(error, Diverged):
        return Result("pruned", reason=f"{error} (epoch {watcher.reached + 1})", diverged=True)
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
        task: of the trial.
        devices: number of processes that train it together.
        callbacks: beside those of the task.
        module: to be trained, whose flavor is the Trainer's.

    Raises:
        MisconfigurationException: if the task asks for a device that is not there.
    """
    flavor = STANDALONE if module is None else flavor_of(module)
    defaults: dict[str, Any] = {
        "devices": devices,
        "strategy": "auto" if devices == 1 else "ddp",
        # On a GPU, the same seed gives the same bits only if torch is asked for it.
        "deterministic": "warn" if torch.cuda.is_available() else None,
        "max_epochs": task.epochs,
    }
    own = [copy.deepcopy(callback) for callback in task.callbacks]
    for callback in own:
        check_one_flavor(flavor, callback=callback)
    if module is None or isinstance(module, TricksModule):
        defaults["logger"] = False  # it asks for none
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
