"""Intervals over seeds and samples at once: several models, each scored on the same samples."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lightning_tricks.selection.intervals import LEVEL, Interval

Matrix = NDArray[np.floating[Any]]
"""Scores of shape (seeds, blocks): of each model on each block of samples."""


def crossed_interval(values: Matrix, level: float = LEVEL) -> Interval:
    """Return the mean score of models with an interval for other seeds and other samples.

    A score is a mean, plus an effect of the seed, plus an effect of the samples that all seeds share,
    plus noise. The variance of the mean follows in closed form from the two-way random-effects analysis
    of variance: that of the seeds' means, plus what the blocks differ by beyond noise (Owen, 2007). The
    degrees of freedom are those of Satterthwaite (1946).

    Args:
        values: of shape (seeds, blocks). The difference of two such matrices compares two recipes,
            paired by seed and by sample.
        level: probability that the interval contains the true mean.

    Returns:
        The interval; without bounds where nothing varies, or there is one value alone.

    Example:
        gain = crossed_interval(scores_of_candidate - scores_of_incumbent)
    """
    seeds, blocks = values.shape
    mean = float(values.mean())
    of_seeds, of_samples = _variances(values)
    total = of_seeds + of_samples
    if total <= 1e-18:  # every model scored alike on every block: nothing was seen of others
        return Interval(mean, None, None)
    parts = [(of_seeds, seeds - 1), (of_samples, blocks - 1)]
    freedom = total**2 / sum(part**2 / degrees for part, degrees in parts if degrees)
    half = float(stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(total))
    return Interval(mean, mean - half, mean + half)


def _variances(values: Matrix) -> tuple[float, float]:
    """Return the variance that the mean has from its seeds, and from its samples."""
    seeds, blocks = values.shape
    by_seed, by_block = values.mean(1), values.mean(0)
    of_seeds = float(by_seed.var(ddof=1)) / seeds if seeds > 1 else 0.0
    if blocks == 1:
        return of_seeds, 0.0
    noise = 0.0
    if seeds > 1:
        rest = values - by_seed[:, None] - by_block[None, :] + values.mean()
        noise = float((rest**2).sum()) / ((seeds - 1) * (blocks - 1))
    return of_seeds, max(float(by_block.var(ddof=1)) - noise / seeds, 0.0) / blocks


def seeds_to_tell(values: Matrix, level: float, power: float = 0.8) -> int | None:
    """Return how many seeds would confirm a gain as large as the one that was seen.

    Args:
        values: the differences, of shape (seeds, blocks); more is better.
        level: of the interval that is to leave out zero.
        power: probability that it does, if the true gain is the one that was seen.

    Returns:
        The number of seeds in all; None if no number of seeds is enough, because there are too few
        samples or there is no gain.
    """
    of_seeds, of_samples = _variances(values)
    needed = float(stats.norm.ppf((1 + level) / 2) + stats.norm.ppf(power))
    room = (max(float(values.mean()), 0.0) / needed) ** 2 - of_samples
    return int(np.ceil(of_seeds * len(values) / room)) if room > 0 else None
