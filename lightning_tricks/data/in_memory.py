"""Data sets in memory, served as whole batches, from the device if they fit there."""

import copy
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_tricks.data.arrays import read_split
from lightning_tricks.data.halves import validating_samples
from lightning_tricks.data.tensor_loader import Split, TensorLoader
from lightning_tricks.errors import InputError, one_line, whole_number

EVALUATION_BATCH = 4096
"""Samples per batch in evaluation; fewer if samples are large."""
EVALUATION_NUMBERS = 2**19
"""Input numbers per evaluation batch; the layers of a network produce many times more."""
MOST_CLASSES = 10
"""Number of classes above which few samples of each mean that targets are numbers to predict."""


class InMemoryData(pl.LightningDataModule):
    """Train, validation and test splits of a data set that fits in memory.

    They are kept on the training device, in their own type (images as bytes), if they take less than
    half of its free memory. Otherwise each batch is collected in pinned host memory and then moved.

    The order of the samples in an epoch depends only on torch's initial seed and the epoch's number.

    Args:
        train: the split to learn from.
        validation: the split to compare trials on.
        test: the split that only the champion sees; optional.
        batch_size: samples in a training batch.
        regression: whether targets are numbers, kept as (N, k), instead of classes.

    Raises:
        InputError: if a split is empty, inputs hold NaN or infinity, inputs and targets differ in
            number, or there are fewer than two classes.
    """

    split_seed: int | None = None
    """Seed of the split; None if the data were given as splits."""
    validation_samples: Tensor | None = None
    """Indices of the validation samples among all samples outside the test split, if drawn again."""

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
        batch_size = whole_number("batch_size", batch_size, 1)
        given = {"train": train, "validation": validation, "test": test}
        present = {name: split for name, split in given.items() if split is not None}
        self.splits = {name: read_split(name, split, regression) for name, split in present.items()}
        shapes = {name: tuple(split.inputs.shape[1:]) for name, split in self.splits.items()}
        if len(set(shapes.values())) > 1:
            raise InputError(f"the samples of all splits must be of one shape (got {shapes})")
        self.batch_size = batch_size
        if regression:
            self.outputs = self.splits["train"].targets.shape[1]
            """Number of classes, or of numbers to predict."""
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

    __str__ = __repr__  # Lightning's own fails on our loaders

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
        """Return data from arrays, split at random with equal shares of each class.

        Args:
            inputs: (N, …), any array of numbers.
            targets: (N,), class numbers; or (N,) or (N, k), numbers to predict.
            validation: the share of samples to compare trials on.
            test: the share of samples that only the champion sees.
            batch_size: samples in a training batch.
            seed: the seed of the split, which is the same for every trial.
            regression: whether targets are numbers instead of classes.

        Raises:
            InputError: as for the class, or if a class has too few samples to be split.
        """
        # Slow to import, and rarely needed.
        from sklearn.model_selection import train_test_split  # noqa: PLC0415

        whole = read_split("data set", (inputs, targets), regression)
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
            raise InputError(_why_not_split(error, whole.targets, regression)) from None
        parts = [Split(whole.inputs[part], whole.targets[part]) for part in (train, compared, held)]
        data = cls(*parts, batch_size=batch_size, regression=regression)
        data.split_seed = seed
        return data

    def split_anew(self, number: int) -> "InMemoryData":
        """Return the same data with other training and validation samples; the test split stays.

        One half of the samples outside the test split validates the trials of the search. The other
        half takes no part in choosing: it only measures how good the chosen recipe is.

        Args:
            number: number of the split. 0 is the present split. Other even numbers draw validation
                samples from the half of the search, odd numbers from the other half. Data that were
                given as splits never change.
        """
        alike = copy.copy(self)
        if not number or self.split_seed is None:
            return alike
        parts = [self.splits[name] for name in ("train", "validation")]
        inputs, targets = (torch.cat([p[at].cpu() for p in parts]) for at in (0, 1))
        compared = validating_samples(targets, len(parts[1].targets), self.split_seed, number)
        train = np.setdiff1d(np.arange(len(targets)), compared)
        drawn = {"train": train, "validation": compared}
        alike.splits = {
            **self.splits,
            **{name: Split(inputs[at], targets[at]) for name, at in drawn.items()},
        }
        alike.validation_samples = torch.from_numpy(compared)
        return alike

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.splits["train"].inputs.shape[1:])

    def check_devices(self, devices: int) -> None:
        """Check that a number of processes can share every batch.

        Raises:
            InputError: if a process would get no sample.
        """
        for split, batch, shuffle in (
            ("train", self.batch_size, lambda: 0),
            ("validation", self._evaluation_batch, None),
        ):
            TensorLoader(self.splits[split], batch, shuffle, (0, devices))

    def setup(self, stage: str) -> None:
        del stage
        if self.trainer is not None:
            self.move(self.trainer.strategy.root_device)

    def move(self, device: torch.device) -> None:
        """Move the splits to a device, if they fit there."""
        if not _fits(self.splits.values(), device):
            device = torch.device("cpu")  # each batch is moved later
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


def _why_not_split(error: ValueError, targets: Tensor, regression: bool) -> str:
    """Return why data cannot be split. Usually numbers to predict were taken for classes."""
    different = len(torch.unique(targets))
    if not regression and different > max(MOST_CLASSES, len(targets) / 4):
        return (
            f"the targets have {different} different values in {len(targets)} samples, which are too "
            "many classes to be split: if they are numbers to predict, set regression=True"
        )
    return f"the data set cannot be split: {one_line(error)}"


def _fits(splits: Iterable[Split], device: torch.device) -> bool:
    """Tell whether the splits take less than half of a device's free memory, or are there already."""
    parts = [part for split in splits for part in split if part.device != device]
    if device.type != "cuda" or not parts:
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return sum(part.nbytes for part in parts) < free / 2
