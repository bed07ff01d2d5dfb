"""Whole batches, sliced from tensors."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_tricks.errors import InputError


class Split(NamedTuple):
    """The inputs and targets of some samples."""

    inputs: Tensor
    """(N, …)"""
    targets: Tensor
    """(N,) class numbers, or (N, k) numbers to predict."""


class TensorLoader:
    """A loader that slices whole batches from tensors instead of collating single samples.

    Args:
        split: the samples.
        batch_size: samples in a batch.
        shuffle: returns the seed of this epoch's order; None keeps the order.
        share: the index of this process and the number of processes. Each gets its share of every
            batch, so that together they take the same steps as one process.

    Raises:
        InputError: if a process would get no sample of a batch.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        shuffle: Callable[[], int] | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.split, self.batch_size, self.shuffle, self.share = split, batch_size, shuffle, share
        if self._smallest < share[1]:
            raise InputError(
                f"each of {share[1]} processes needs a sample of every batch, and the smallest has "
                f"{self._smallest}: take a larger batch_size, or fewer devices per trial"
            )

    @property
    def whole(self) -> "TensorLoader":
        """A loader of the whole batches, for all processes together."""
        return TensorLoader(self.split, self.batch_size, self.shuffle)

    def __len__(self) -> int:
        full, rest = divmod(len(self.split.inputs), self.batch_size)
        # Training drops a last batch of one sample per process, which batch norm cannot use.
        return full + (rest >= (2 * self.share[1] if self.shuffle and full else 1))

    def order(self, seed: int) -> Sequence[Tensor]:
        """Return the sample indices of each training batch of an epoch, from the seed of its order."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.split.inputs), generator=generator).to(self.split.inputs.device)
        return torch.split(order, self.batch_size)[: len(self)]

    @property
    def _smallest(self) -> int:
        """Number of samples in the smallest batch, of all processes together."""
        samples = len(self.split.inputs)
        return samples // len(self) if self.shuffle is None else min(samples, self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, targets = self.split
        first, step = self.share
        if self.shuffle is None:
            # Even sizes, so that the last batch too has samples for every process.
            pieces = (torch.tensor_split(part, len(self)) for part in (inputs, targets))
            for some_inputs, some_targets in zip(*pieces, strict=True):
                # Copies, because a network may change its inputs in place.
                yield some_inputs[first::step].clone(), some_targets[first::step].clone()
            return
        # Ask once per epoch: asking takes as long as slicing a small batch.
        pinned = inputs.device.type == "cpu" and torch.cuda.is_available()
        for index in self.order(self.shuffle()):
            mine = index[first::step]
            some_inputs, some_targets = inputs[mine], targets[mine]
            if pinned:  # the fastest memory for transfers to a GPU
                some_inputs, some_targets = some_inputs.pin_memory(), some_targets.pin_memory()
            yield some_inputs, some_targets
