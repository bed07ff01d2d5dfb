"""Facts about the data that a task needs before training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from lightning_tricks.data.batches import batch_size_of, with_batch_size
from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.data.loaders import LoaderData, ModuleData, fresh, length_of
from lightning_tricks.errors import InputError, user_code
from lightning_tricks.flavors import flavor_of
from lightning_tricks.task.quiet import quiet, silent_trainer
from lightning_tricks.tricks.batch import SizedBatches
from lightning_tricks.tricks.recipe import Tricks

Settings = Mapping[str, Any]
"""Arguments of a Trainer."""


@contextmanager
def set_up(data: Any, settings: Settings) -> Iterator[Any]:
    """Set up a data module with a silent Trainer attached, because it may use its Trainer."""
    with quiet():
        trainer = silent_trainer(flavor_of(data), **settings)
    before, data.trainer = data.trainer, trainer
    try:
        data.prepare_data()
        data.setup("fit")
        yield data
    finally:
        data.trainer = before


def first_batch(data: pl.LightningDataModule, settings: Settings) -> Any:
    """Return the first validation batch.

    Raises:
        InputError: if there is none.
    """
    with user_code("val_dataloader() must give batches"), set_up(data, settings) as ready:
        loaders = ready.val_dataloader()
        first = loaders[0] if isinstance(loaders, (list, tuple)) else loaders
        return next(iter(fresh(first)))


def training_loader(data: pl.LightningDataModule, settings: Settings) -> Any:
    """Return the loader of the training split. Do not iterate over it.

    Raises:
        InputError: if there is none.
    """
    with user_code("train_dataloader() must give batches"), set_up(data, settings) as ready:
        return ready.train_dataloader()


def check_batch_size(data: pl.LightningDataModule, settings: Settings, tricks: Tricks) -> None:
    """Check that the data can take the batch size of a recipe.

    Raises:
        InputError: if it cannot be changed, or a change has no effect.
    """
    own = batch_size_of(data)
    if not isinstance(tricks.batch, SizedBatches):
        return
    if own is None and tricks.batch.rule != "none":
        raise InputError(
            f"batch 'size' with the rule {tricks.batch.rule!r} needs data with a batch size"
        )
    wanted = (own or 1) + 1  # any other
    found = getattr(training_loader(with_batch_size(data, wanted), settings), "batch_size", None)
    if found != wanted:
        kind = type(data).__name__
        raise InputError(f"the batch_size of {kind} does not change its training batches")


def knows_steps(loader: Any, trainer: Settings) -> bool:
    """Tell whether the number of steps of a trial is known before it begins.

    Args:
        loader: of the training split.
        trainer: all arguments of the trials' Trainer.
    """
    limited = isinstance(trainer.get("limit_train_batches"), int) or trainer.get("max_steps", -1) > 0
    return limited or length_of(loader) is not None


def leaves_one_sample(loader: Any) -> bool:
    """Tell whether the last batch of an epoch is known to hold a single sample."""
    if not isinstance(loader, DataLoader) or not loader.batch_size or loader.drop_last:
        return False
    return loader.batch_size > 1 and (length_of(loader.dataset) or 0) % loader.batch_size == 1


def training_samples(data: pl.LightningDataModule) -> int | None:
    """Return the number of training samples; None if unknown."""
    if isinstance(data, InMemoryData):
        return len(data.splits["train"].inputs)
    return data.samples() if isinstance(data, LoaderData) else None


def has_test_split(data: pl.LightningDataModule) -> bool:
    """Tell whether there is a test split."""
    if isinstance(data, InMemoryData):
        return "test" in data.splits
    if isinstance(data, LoaderData):
        return "test" in data.loaders
    if isinstance(data, ModuleData):
        return data.tests()
    lightnings = flavor_of(data).package.LightningDataModule
    return bool(type(data).test_dataloader is not lightnings.test_dataloader)
