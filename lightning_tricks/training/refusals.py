"""Reasons why trials are trained one by one: all of a task, or those of some shapes."""

from collections.abc import Hashable, Iterator

import torch

from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.errors import one_line
from lightning_tricks.fusion.shape import shape_of
from lightning_tricks.task.quiet import quiet
from lightning_tricks.task.task import Task
from lightning_tricks.trial.fit import trainer_of
from lightning_tricks.tricks.recipe import ModuleTricks, Tricks

MOST_SHAPES = 3
"""Number of failed shapes, without a successful one, after which groups are no longer tried."""
_OF_DATA = (
    "train_dataloader",
    "val_dataloader",
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
)
"""Methods of InMemoryData that a group replaces."""


class Refusals:
    """Known reasons why trials cannot be trained as a group.

    Args:
        task: the trials' task.
        devices: the number of devices that train a trial together.
    """

    def __init__(self, task: Task, devices: int) -> None:
        self.of_all = of_task(task, devices) or _of_device(task)
        """Why no trials can be grouped; empty if some may be."""
        self.fused = False
        """Whether some trials were trained as a group."""
        self._of_shapes: dict[Hashable, str] = {}

    def of(self, recipe: Tricks) -> str:
        """Return why trials of a recipe's shape are trained one by one; empty if they can be grouped."""
        return self.of_all or self._of_shapes.get(shape_of(recipe), "")

    def add(self, recipe: Tricks, why: str) -> None:
        """Note that trials of a recipe's shape cannot be grouped."""
        self._of_shapes[shape_of(recipe)] = why
        if len(self._of_shapes) >= MOST_SHAPES and not self.fused:
            self.of_all = why


def of_task(task: Task, devices: int) -> str:
    """Return why no trials of a task can be grouped, on any device; empty if they may be."""
    return next(_of_task(task, devices), "")


def _of_task(task: Task, devices: int) -> Iterator[str]:
    if issubclass(task.tricks, ModuleTricks):
        yield "a LightningModule has steps of its own"
    if devices > 1:
        yield "several devices train a trial"
    if not isinstance(task.data, InMemoryData):
        yield "the data are not InMemoryData"
    for name in _OF_DATA:
        if getattr(type(task.data), name) is not getattr(InMemoryData, name):
            yield f"the data have their own {name}"
    if others := sorted(set(task.trainer) - {"accelerator"}):
        yield f"the trainer sets {', '.join(others)}"
    if task.callbacks or task.logger is not None:
        yield "the task has callbacks or a logger"
    if task.compiled:
        yield "the network is compiled"
    if task.channels_last:
        yield "images are channels_last"


def _of_device(task: Task) -> str:
    """Return why the task's device cannot train groups; empty if it can."""
    try:
        device = device_of(task)
    except Exception as error:  # no such device: a trial that is trained alone reports it
        return one_line(error)
    return "" if device.type in ("cpu", "cuda") else f"the device is {device}"


def device_of(task: Task) -> torch.device:
    """Return the device that Lightning trains a trial of a task on.

    Raises:
        MisconfigurationException: if there is no such device.
    """
    with quiet():
        return trainer_of(task).strategy.root_device
