"""What the data take, such as another batch size, and mistakes in labels and numbers to predict."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from lightning_tricks.data.batches import batch_size_of
from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.data.loaders import length_of
from lightning_tricks.errors import InputError
from lightning_tricks.module.singles import ONE_SAMPLE
from lightning_tricks.task import data_facts
from lightning_tricks.task.kinds_left import KindsLeft
from lightning_tricks.tricks.batch import SIZES
from lightning_tricks.tricks.recipe import Tricks

SIZE = "batch.size.size"
"""Path of the batch size."""
SMALLEST_TARGETS, LARGEST_TARGETS = 0.01, 10.0
"""Root mean squares of targets between which networks learn them at usual learning rates."""


def check_batches(kinds: KindsLeft) -> None:
    """If the batch size is searched, check that it can change, and search around the data's own."""
    task = kinds.task
    if "size" not in kinds.of("batch"):
        return
    kinds.try_each("batch", partial(data_facts.check_batch_size, task.data, task.rehearsed))
    if "size" not in kinds.of("batch") or SIZE in kinds.space.changed:
        return
    own, samples = batch_size_of(task.data), task.samples()
    most = min(4 * own if own else SIZES[-1], samples or SIZES[-1])
    sizes = [size for size in SIZES if (own or SIZES[0]) / 4 <= size <= most]
    kinds.space = kinds.space.narrow({SIZE: sizes or [own or 1]})


def check_loader(kinds: KindsLeft) -> list[str]:
    """Check what depends on the length of the training loader; return what the user should know.

    Raises:
        InputError: if it has no batches, or no validation ends an epoch.
    """
    task = kinds.task
    if "val_check_interval" not in task.trainer and isinstance(task.data, InMemoryData):
        return []
    loader = data_facts.training_loader(task.data, task.rehearsed)
    if length_of(loader) == 0:
        raise InputError(
            "the training loader has no batches: give it more samples, or leave out drop_last (got "
            "length 0)"
        )
    _check_validation(loader, task.trainer)
    if not data_facts.knows_steps(loader, task.trainer):
        for stage in ("schedule", "averaging"):
            kinds.try_each(stage, partial(_check_steps, stage))
    return [f"{ONE_SAMPLE}, in trials with it"] if data_facts.leaves_one_sample(loader) else []


def _check_validation(loader: Any, trainer: Mapping[str, Any]) -> None:
    """Check that a validation ends each epoch, because trials are compared there.

    Raises:
        InputError: if `val_check_interval` does not divide the batches of an epoch.
    """
    interval, limit = trainer.get("val_check_interval"), trainer.get("limit_train_batches", 1.0)
    batches = length_of(loader)
    if interval is None or batches is None:
        return
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    every = int(batches * interval) if isinstance(interval, float) else interval
    if not isinstance(every, int) or not every or batches % every:
        raise InputError(
            "trials are compared at the end of each epoch, and no validation ends there: leave "
            f"val_check_interval out of trainer (got {interval}, with {batches} batches in an epoch)"
        )


def labels_from_one(data: Any, outputs: torch.Tensor) -> list[str]:
    """Return a line if no training sample has the first label, for which the network has an output."""
    if not isinstance(data, InMemoryData) or outputs.dim() != 2 or outputs.shape[1] < 3:
        return []
    targets = data.splits["train"].targets
    if targets.is_floating_point() or targets.dim() != 1 or int(targets.min()) == 0:
        return []
    line = (
        f"no training sample has label 0, for which the network has one of its {outputs.shape[1]} "
        f"outputs: labels count from 0, and these begin at {int(targets.min())}"
    )
    return [line]


def unscaled_targets(outputs: torch.Tensor, targets: torch.Tensor) -> list[str]:
    """Return a line if numbers to predict are so large or so small that networks hardly learn them."""
    if not targets.is_floating_point() or outputs.shape != targets.shape:
        return []
    size = float(targets.double().square().mean().sqrt())
    if not size or SMALLEST_TARGETS <= size <= LARGEST_TARGETS:
        return []
    mean, deviation = float(targets.double().mean()), float(targets.double().std(correction=0))
    line = (
        f"the targets have a mean of {mean:.3g} and a standard deviation of {deviation:.3g}, and "
        "networks begin with outputs near 0: scale the targets first, (targets - mean) / deviation, "
        "unless your loss or your network does"
    )
    return [line]


def _check_steps(stage: str, tricks: Tricks) -> None:
    trick = getattr(tricks, stage)
    if trick.needs_steps:
        raise InputError(
            f"{stage} {trick.kind!r} needs the number of steps, and the training loader has no length: "
            "set limit_train_batches or max_steps in the task's trainer"
        )
