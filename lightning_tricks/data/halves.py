"""Validation samples: one half of the data is for the search, the other half for its verdict."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_tricks.seeds import derive

Places = NDArray[np.intp]


def validating_samples(targets: Tensor, size: int, seed: int, number: int) -> Places:
    """Return the indices of the validation samples of a split, in ascending order.

    Args:
        targets: targets of all samples outside the test split; the last `size` are the data's own
            validation split.
        size: number of validation samples.
        seed: seed of the data's own split.
        number: number of the split. Even numbers draw from the half that holds the own validation
            split, odd numbers from the other half.
    """
    index = np.arange(len(targets))
    trained = index[: len(targets) - size]
    more = max(len(targets) // 2 - size, 0)
    others = trained
    if more:
        others = _part(trained, targets, len(trained) - more, derive(seed, 0, "halves"))
    half = others if number % 2 else np.setdiff1d(index, others)
    wanted = min(size, len(half))
    return _part(half, targets, wanted, derive(seed, number, "split")) if wanted < len(half) else half


def _part(samples: Places, targets: Tensor, size: int, seed: int) -> Places:
    """Return a random part of some samples, with the same share of every class if possible."""
    # Slow to import, and rarely needed.
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    own = targets[torch.from_numpy(samples)]
    counts = torch.bincount(own) if own.dim() == 1 else torch.zeros(1, dtype=torch.long)
    counts = counts[counts > 0]
    fits = len(counts) and int(counts.min()) > 1 and len(counts) <= min(size, len(samples) - size)
    _, part = train_test_split(
        samples, test_size=size, random_state=seed, stratify=own if fits else None
    )
    return np.sort(part)
