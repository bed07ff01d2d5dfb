"""Intervals over both seeds and samples, for several models scored on the same samples."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lightning_tricks.selection.intervals import LEVEL, Interval

MOST_SEEDS = 500
"""More seeds than these are no way to tell."""
Matrix = NDArray[np.floating[Any]]
"""Scores of each model on each block of samples, of shape (seeds, blocks)."""


def crossed_interval(values: Matrix, level: float = LEVEL) -> Interval:
    """Return the models' mean score, with an interval that allows for other seeds and samples.

    The model: a score is a mean, plus a seed effect, plus an effect of the samples that all seeds share,
    plus noise. The variance of the mean has a closed form, by two-way random-effects analysis of
    variance: the variance of the seeds' means, plus the variance between blocks beyond noise (Owen,
    2007). The degrees of freedom follow Satterthwaite (1946), which is too narrow by a few percent for
    three seeds; so the interval is never narrower than Student's over the seeds alone.

    Args:
        values: scores of shape (seeds, blocks). The difference of two such matrices compares two
            recipes, paired by seed and by sample.
        level: probability that the interval contains the true mean.

    Returns:
        The interval; without bounds if nothing varies, or there is only one value.

    Example:
        gain = crossed_interval(scores_of_candidate - scores_of_incumbent)
    """
    seeds, blocks = values.shape
    mean = float(values.mean())
    of_seeds, of_samples = _variances(values)
    total = of_seeds + of_samples
    if total <= 1e-18:  # all scores are equal: they say nothing about the variance
        return Interval(mean, None, None)
    freedom = _freedom(of_seeds, of_samples, seeds, blocks)
    half = float(stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(total))
    if seeds > 1:
        half = max(half, float(stats.t.ppf((1 + level) / 2, seeds - 1) * np.sqrt(of_seeds)))
    return Interval(mean, mean - half, mean + half)


def _freedom(of_seeds: Any, of_samples: Any, seeds: Any, blocks: int) -> Any:
    """Return Satterthwaite's degrees of freedom; of each entry, if numbers of seeds are an array.

    Args:
        of_seeds: variance of the mean due to seeds; 0 for a single seed.
        of_samples: variance of the mean due to samples; 0 for a single block.
        seeds: number of seeds.
        blocks: number of blocks.
    """
    shares = of_seeds**2 / np.maximum(seeds - 1, 1) + of_samples**2 / max(blocks - 1, 1)
    return (of_seeds + of_samples) ** 2 / shares


def _variances(values: Matrix) -> tuple[float, float]:
    """Return the variance of the mean due to seeds, and due to samples."""
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
    """Return how many seeds would confirm a gain of the observed size.

    Args:
        values: the differences, of shape (seeds, blocks); higher is better.
        level: level of the interval that must exclude zero.
        power: probability that it does, if the true gain equals the observed one, by the noncentral t
            distribution.

    Returns:
        The total number of seeds; None if `MOST_SEEDS` are not enough, because there are too few samples
        or there is no gain.
    """
    of_seeds, of_samples = _variances(values)
    mean, total = float(values.mean()), of_seeds + of_samples
    if mean <= 0 or total <= 1e-18:
        return None
    seeds = np.arange(2, MOST_SEEDS + 1)
    then = of_seeds * len(values) / seeds  # the variance due to seeds, for each number of seeds
    freedom = _freedom(then, of_samples, seeds, values.shape[1])
    # Beyond 10⁴ deviations SciPy's series does not converge, and every distance is as sure.
    distance = np.minimum(mean / np.sqrt(then + of_samples), 1e4)
    told = stats.nct.sf(stats.t.ppf((1 + level) / 2, freedom), freedom, distance)
    enough = seeds[told >= power]
    return int(enough[0]) if len(enough) else None
