"""Calls into Lightning's private names, all in this file, because they may change."""

import functools
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any

import pytorch_lightning as pl

CURRENT_HOOK = "_current_fx_name"
"""Attribute of a module that Lightning sets twice per hook, about fifty times per step."""

_entry_points = functools.cache(entry_points)


@contextmanager
def reading_entry_points_once(fabric: str) -> Iterator[None]:
    """Make Trainers without reading the metadata of all installed packages for each.

    They look there for callbacks of other packages, which takes longer than anything else they do.

    Args:
        fabric: name of the package with Fabric.
    """
    registry: Any = importlib.import_module(f"{fabric}.utilities.registry")
    before = registry.entry_points
    registry.entry_points = _entry_points
    try:
        yield
    finally:
        registry.entry_points = before


def trainer_if_any(module: pl.LightningModule) -> pl.Trainer | None:
    """Return the Trainer of a module; None if it has none (the public property would raise)."""
    found: pl.Trainer | None = module._trainer
    return found


def begin_batches_anew(trainer: pl.Trainer) -> None:
    """Draw the batches of an epoch again, because Lightning drew them before the epoch began."""
    iter(trainer.fit_loop._data_fetcher or ())


def check_not_cut_short(trainer: pl.Trainer) -> None:
    """Check that no `StopIteration` of the user's code ended a loop; Lightning would not notice.

    Raises:
        RuntimeError: if `StopIteration` was raised inside a step.
    """
    if not hasattr(trainer.fit_loop, "epoch_loop"):  # a group has a loop of its own
        return
    training = trainer.fit_loop.epoch_loop
    for progress in (training.batch_progress, training.val_loop.batch_progress):
        current: Any = progress.current
        if current.started > current.processed:
            raise RuntimeError("a step, or the network, raised StopIteration")
