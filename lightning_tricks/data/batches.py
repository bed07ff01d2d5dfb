"""Reads and changes the batch size of data of any kind."""

import copy
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.data.loaders import LoaderData
from lightning_tricks.errors import InputError, whole_number


def batch_size_of(data: pl.LightningDataModule) -> int | None:
    """Return the number of samples in a training batch; None if unknown."""
    if isinstance(data, LoaderData):
        found = getattr(data.loaders["train"], "batch_size", None)
    else:
        found = getattr(data, "batch_size", None) or _parameters(data).get("batch_size")
    return found if isinstance(found, int) and found > 0 else None


def with_batch_size(data: pl.LightningDataModule, size: int) -> pl.LightningDataModule:
    """Return the same data with another batch size for training.

    Args:
        data: InMemoryData, `DataLoader`s, or a data module with an attribute or hyperparameter
            `batch_size` that its loaders use.
        size: the new batch size, in samples.

    Raises:
        InputError: if the data have no batch size that can be changed.
    """
    size = whole_number("the batch size", size, 1)
    alike = copy.copy(data)
    if isinstance(alike, LoaderData):
        alike.loaders = {**alike.loaders, "train": resized(alike.loaders["train"], size)}
    elif hasattr(alike, "batch_size"):
        alike.batch_size = size
    elif "batch_size" in _parameters(alike):
        vars(alike)["_hparams"] = copy.copy(alike.hparams)  # Lightning's attribute for them
        alike.hparams["batch_size"] = size
    else:
        raise InputError(
            f"the batch size cannot be changed: {type(data).__name__} has no attribute `batch_size`"
        )
    return alike


def resized(loader: Any, size: int) -> "DataLoader[Any]":
    """Return a copy of a `DataLoader` with another batch size.

    Raises:
        InputError: if it is a subclass, or has a batch sampler of its own.
    """
    if type(loader) is not DataLoader:
        raise InputError(
            f"the batch size cannot be changed: {type(loader).__name__} is not torch's own DataLoader"
        )
    if loader.batch_size is None or type(loader.batch_sampler) is not BatchSampler:
        raise InputError("the batch size cannot be changed: the loader has a batch sampler of its own")
    held = loader.dataset
    sampler: dict[str, Any] = {} if isinstance(held, IterableDataset) else {"sampler": loader.sampler}
    names = (
        "num_workers",
        "collate_fn",
        "pin_memory",
        "drop_last",
        "timeout",
        "worker_init_fn",
        "multiprocessing_context",
        "generator",
        "prefetch_factor",
        "persistent_workers",
        "in_order",
    )
    same = {name: getattr(loader, name) for name in names if hasattr(loader, name)}
    return DataLoader(held, batch_size=size, **sampler, **same)


def _parameters(data: pl.LightningDataModule) -> Any:
    """Return the hyperparameters that a data module saved."""
    return {} if isinstance(data, InMemoryData) else getattr(data, "hparams", {})
