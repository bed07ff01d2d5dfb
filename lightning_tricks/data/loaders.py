"""The user's `DataLoader`s: read without disturbing training, and wrapped as a data module."""

import copy
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Sampler

from lightning_tricks.data.tensor_loader import TensorLoader
from lightning_tricks.errors import InputError
from lightning_tricks.flavors import flavor_of, is_data_module

ENDLESS = 1000
"""Number of batches to read from a loader of unknown length."""


def length_of(loader: Any) -> int | None:
    """Return the number of batches of a loader; None if unknown."""
    try:
        return len(loader)
    except (TypeError, RuntimeError):  # Lightning's CombinedLoader has a length once it is walked
        return None


def fresh(loader: Any) -> Any:
    """Return a loader of the same samples with an iterator of its own, which torch's seed orders.

    A `DataLoader` with persistent workers has only one iterator. Reading it would take batches away
    from training. A generator of the loader's own would go on from trial to trial, so that the order
    of a trial's samples would not follow from its seed.
    """
    if not isinstance(loader, DataLoader):
        return loader
    alike = copy.copy(loader)
    vars(alike)["_iterator"] = None  # torch's attribute for the iterator of persistent workers
    vars(alike)["generator"] = None
    sampler = _seeded(loader.sampler)
    vars(alike)["sampler"] = sampler
    if getattr(loader.batch_sampler, "sampler", None) is loader.sampler:
        batches = copy.copy(loader.batch_sampler)
        vars(batches)["sampler"] = sampler
        vars(alike)["batch_sampler"] = batches
    return alike


def _seeded(sampler: Any) -> Any:
    """Return one of torch's samplers without its generator: it then draws from torch's seed."""
    torchs = type(sampler).__module__ == Sampler.__module__
    if not torchs or getattr(sampler, "generator", None) is None:
        return sampler
    alike = copy.copy(sampler)
    alike.generator = None
    return alike


def seed_loaders(loaders: Any, seed: int) -> None:
    """Seed the generators that the loaders of a user's own data module hold.

    Args:
        loaders: the loaders, in lists or dictionaries.
        seed: the seed.
    """
    for loader in tree_leaves(loaders):
        batches = getattr(loader, "batch_sampler", None)
        samplers = (getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))
        for holder in (loader, *samplers):
            if isinstance(generator := getattr(holder, "generator", None), torch.Generator):
                generator.manual_seed(seed)


def training_batches(trainer: pl.Trainer) -> Iterator[Any]:
    """Walk the batches of one epoch without disturbing training.

    Lightning must have set up its loader; it has once the number of steps is known.
    """
    loader: Any = trainer.train_dataloader
    most, length = trainer.num_training_batches, length_of(loader)
    limit: int | None = ENDLESS if most == float("inf") else int(most)
    if length is not None and most >= length:
        limit = None  # the whole loader has more batches than a process's share
    loader = loader.whole if isinstance(loader, TensorLoader) else fresh(loader)
    yield from islice(loader, limit)


def data_module(data: Any) -> pl.LightningDataModule:
    """Return a data module from the user's data.

    Raises:
        InputError: if it is neither a data module nor two or three loaders.
    """
    if is_data_module(data):
        return data
    if not isinstance(data, (tuple, list)) or any(hasattr(part, "__array__") for part in data):
        raise InputError(
            "data must be a LightningDataModule, such as InMemoryData.from_arrays(inputs, targets), or "
            f"DataLoaders, (train, validation, test) (got {type(data).__name__})"
        )
    if len(data) not in (2, 3):
        raise InputError(
            f"data must be two or three loaders, (train, validation) or (train, validation, test) "
            f"(got {len(data)})"
        )
    return LoaderData(*data)


class ModuleData(pl.LightningDataModule):
    """The loaders of a LightningModule itself.

    Args:
        make: makes the module.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self.make = make
        self.module: Any = None

    def setup(self, stage: str) -> None:
        self.module = self.make()
        self.module.trainer = self.trainer
        self.module.prepare_data()
        self.module.setup(stage)

    def train_dataloader(self) -> Any:
        return self.module.train_dataloader()

    def val_dataloader(self) -> Any:
        return self.module.val_dataloader()

    def test_dataloader(self) -> Any:
        return self.module.test_dataloader()

    def tests(self) -> bool:
        """Tell whether there is a test split."""
        kind = type(self.make())
        lightnings = flavor_of(self.make()).package.LightningModule
        return kind.test_dataloader is not lightnings.test_dataloader


class LoaderData(pl.LightningDataModule):
    """A data module of `DataLoader`s.

    Args:
        train: the loader to learn from.
        validation: the loader to compare trials on.
        test: the loader that only the champion sees; optional.

    Raises:
        InputError: if one cannot be walked again each epoch.
    """

    def __init__(self, train: Any, validation: Any, test: Any = None) -> None:
        super().__init__()
        given = {"train": train, "validation": validation, "test": test}
        self.loaders = {name: loader for name, loader in given.items() if loader is not None}
        for name, loader in self.loaders.items():
            if not hasattr(loader, "__iter__") or hasattr(loader, "__next__"):
                raise InputError(
                    f"the {name} loader must be iterable again each epoch, like a DataLoader "
                    f"(got {type(loader).__name__})"
                )

    def samples(self) -> int | None:
        """Return the number of training samples; None if unknown."""
        held: Any = getattr(self.loaders["train"], "dataset", None)
        return len(held) if hasattr(held, "__len__") else None

    def train_dataloader(self) -> Any:
        return fresh(self.loaders["train"])

    def val_dataloader(self) -> Any:
        return fresh(self.loaders["validation"])

    def test_dataloader(self) -> Any:
        if "test" not in self.loaders:
            raise InputError("this data set has no test split")
        return fresh(self.loaders["test"])
