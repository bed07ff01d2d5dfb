"""Data sets that fit in memory, served as whole batches, from the device where they fit there."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_tricks.data.tensor_loader import Split, TensorLoader
from lightning_tricks.errors import InputError, one_line

EVALUATION_BATCH = 4096
"""Samples in a batch where no gradient is kept; fewer if they are large."""
EVALUATION_NUMBERS = 2**19
"""Numbers in such a batch: the layers of a network make many times as many of them."""


class InMemoryData(pl.LightningDataModule):
    """Train, validation and test splits of a data set that fits in memory.

    They are kept on the device that trains, as the type that they have (images as bytes), if they
    take less than half of its free memory. Otherwise each batch is put together in the memory of the
    host, pinned, and moved.

    The order of each epoch follows from torch's initial seed and the number of the epoch alone.

    Args:
        train: the split to learn from.
        validation: the split to compare trials on.
        test: the split that only the champion sees; may be left out.
        batch_size: samples in a training batch.
        regression: whether targets are numbers to predict, kept as (N, k), and not classes.

    Raises:
        InputError: if a split is empty, inputs hold NaN or infinity, inputs and targets differ in
            number, or fewer than two classes are there.
    """

    def __init__(
        self,
        train: Split,
        validation: Split,
        test: Split | None = None,
        *,
        batch_size: int = 64,
        regression: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch_size must be a whole number of at least 1 (got {batch_size})")
        given = {"train": train, "validation": validation, "test": test}
        self.splits = {
            name: _split(name, split, regression) for name, split in given.items() if split is not None
        }
        shapes = {name: tuple(split.inputs.shape[1:]) for name, split in self.splits.items()}
        if len(set(shapes.values())) > 1:
            raise InputError(f"the samples of all splits must be of one shape (got {shapes})")
        self.batch_size = batch_size
        if regression:
            self.outputs = self.splits["train"].targets.shape[1]
            """The number of classes, or of numbers to predict."""
            return
        classes = torch.unique(self.splits["train"].targets)
        if len(classes) < 2:
            raise InputError(
                f"a classification data set needs at least two classes (got {classes.tolist()})"
            )
        self.outputs = 1 + max(int(split.targets.max()) for split in self.splits.values())

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(split.inputs)} {name}" for name, split in self.splits.items())
        return f"InMemoryData({counts} samples of shape {self.sample_shape}, {self.outputs} outputs)"

    __str__ = __repr__  # Lightning's asks the loaders for what ours do not have

    @classmethod
    def from_arrays(
        cls,
        inputs: Any,
        targets: Any,
        *,
        validation: float = 0.2,
        test: float = 0.2,
        batch_size: int = 64,
        seed: int = 0,
        regression: bool = False,
    ) -> "InMemoryData":
        """Split arrays at random, in equal shares of each class.

        Args:
            inputs: (N, …), any array of numbers.
            targets: (N,), class numbers; or (N,) or (N, k), numbers to predict.
            validation: the share of samples to compare trials on.
            test: the share of samples that only the champion sees.
            batch_size: samples in a training batch.
            seed: of the split, which is the same for every trial.
            regression: whether targets are numbers to predict, and not classes.

        Raises:
            InputError: as for the class, or if a class has too few samples to be split.
        """
        # Slow to import, and rarely needed.
        from sklearn.model_selection import train_test_split  # noqa: PLC0415

        whole = _split("data set", (inputs, targets), regression)
        index = np.arange(len(whole.targets))
        classes = None if regression else whole.targets
        try:
            rest, held = train_test_split(index, test_size=test, random_state=seed, stratify=classes)
            train, compared = train_test_split(
                rest,
                test_size=validation / (1 - test),
                random_state=seed,
                stratify=None if classes is None else classes[rest],
            )
        except ValueError as error:
            raise InputError(
                f"the data set cannot be split: {one_line(error)} (numbers to predict need "
                "regression=True)"
            ) from None
        parts = [Split(whole.inputs[part], whole.targets[part]) for part in (train, compared, held)]
        return cls(*parts, batch_size=batch_size, regression=regression)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.splits["train"].inputs.shape[1:])

    def check_devices(self, devices: int) -> None:
        """Check that so many processes can share every batch.

        Raises:
            InputError: if one would get no sample.
        """
        for split, batch, shuffle in (
            ("train", self.batch_size, lambda: 0),
            ("validation", self._evaluation_batch, None),
        ):
            TensorLoader(self.splits[split], batch, shuffle, (0, devices))

    def setup(self, stage: str) -> None:
        del stage
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            if not _fits(self.splits.values(), device):
                device = torch.device("cpu")  # Lightning moves each batch
            self.splits = {
                name: Split(*(part.to(device) for part in split)) for name, split in self.splits.items()
            }

    def train_dataloader(self) -> TensorLoader:
        seed = torch.initial_seed()
        return TensorLoader(
            self.splits["train"], self.batch_size, lambda: seed + self._epoch(), self._share()
        )

    def val_dataloader(self) -> TensorLoader:
        return TensorLoader(self.splits["validation"], self._evaluation_batch, share=self._share())

    def test_dataloader(self) -> TensorLoader:
        if "test" not in self.splits:
            raise InputError("this data set has no test split")
        return TensorLoader(self.splits["test"], self._evaluation_batch)

    @property
    def _evaluation_batch(self) -> int:
        numbers = max(math.prod(self.sample_shape), 1)
        return min(EVALUATION_BATCH, max(EVALUATION_NUMBERS // numbers, self.batch_size))

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer is not None else 0

    def _share(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


def _fits(splits: Iterable[Split], device: torch.device) -> bool:
    """Tell whether the splits take less than half of what a device has free, or are there already."""
    parts = [part for split in splits for part in split if part.device != device]
    if device.type != "cuda" or not parts:
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return sum(part.nbytes for part in parts) < free / 2


def _split(name: str, pair: tuple[Any, Any], regression: bool = False) -> Split:
    """Read inputs and targets, and check them."""
    inputs, targets = (_tensor(name, *part) for part in zip(("inputs", "targets"), pair, strict=True))
    if inputs.is_floating_point():
        inputs = inputs.float()
    if regression:
        targets = targets.float().reshape(len(targets), -1) if targets.dim() else targets
    elif targets.is_floating_point() and bool((targets == targets.round()).all()):
        targets = targets.long()
    _check(name, Split(inputs, targets), regression)
    return Split(inputs, targets if regression else targets.long())


def _tensor(name: str, what: str, values: Any) -> Tensor:
    try:
        return torch.as_tensor(_array(values))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name}: {what} must be numbers ({one_line(error, 80)}); words become class numbers by "
            "pandas.factorize(words)[0], and columns by pandas.get_dummies(table)"
        ) from None


def _array(values: Any) -> Any:
    if isinstance(values, Tensor):
        return values
    array = np.asarray(values)
    if array.dtype == object:  # columns of several types, such as truth values beside numbers
        array = array.astype(np.float64)
    return array if array.flags.writeable else array.copy()  # pandas shares what may not be written


def _check(name: str, split: Split, regression: bool) -> None:
    inputs, targets = split
    if inputs.dim() < 2 or inputs.is_complex():
        raise InputError(
            f"{name}: inputs must be real numbers of shape (N, features) or (N, channels, …) "
            f"(got {inputs.dtype} of shape {tuple(inputs.shape)})"
        )
    if targets.dim() != 1 + regression:
        raise InputError(
            f"{name}: targets must be of shape (N,) (got {tuple(targets.shape)}); several numbers or "
            "labels of a sample need regression=True"
        )
    if not len(inputs) or len(inputs) != len(targets):
        raise InputError(
            f"{name}: inputs and targets must be of one length, at least 1 "
            f"(got {len(inputs)} and {len(targets)})"
        )
    if inputs.is_floating_point() and not torch.isfinite(inputs).all():
        bad = int((~torch.isfinite(inputs)).sum())
        raise InputError(f"{name}: inputs must be finite (got {bad} NaN or infinite values)")
    if regression:
        if not torch.isfinite(targets).all():
            raise InputError(f"{name}: targets must be finite (got NaN or infinite values)")
    elif targets.is_floating_point() or int(targets.min()) < 0:
        raise InputError(f"{name}: targets must be class numbers from 0 on (got {targets.min().item()})")
