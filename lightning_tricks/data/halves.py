"""Which samples validate: half of them in a search, the other half where its outcome is compared."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_tricks.seeds import derive

Places = NDArray[np.intp]


def validating_samples(targets: Tensor, size: int, seed: int, number: int) -> Places:
    """Return which samples validate in a split, in rising order.

    Args:
        targets: of all samples that are not tested on; the last `size` validate as the data stand.
        size: number of samples that validate.
        seed: of the data's own split.
        number: of the split. Even numbers draw from the half that those `size` samples are in, odd ones
            from the other half.
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
    """Return a part of some samples, with its share of every class."""
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
