"""When to look at an interval while seeds are added, and the level that makes repeated looks valid."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

ERROR = 0.05
"""Probability that any interval of any verdict of a study misses the truth."""
FIRST_SHARE = 0.75
"""Share of `ERROR` that a study's first verdict spends. Each further verdict spends this share of the
rest, so all verdicts together keep to `ERROR`."""
SIMULATIONS = 100_000


def error_of(verdict: int) -> float:
    """Return the error probability that one verdict of a study may spend.

    Args:
        verdict: number of earlier verdicts of the study.
    """
    return ERROR * FIRST_SHARE * (1 - FIRST_SHARE) ** verdict


def looks_up_to(first: int, most: int) -> list[int]:
    """Return the numbers of seeds at which a verdict looks: the first, doubled, up to the most.

    Example:
        looks_up_to(5, 18)  # [5, 10, 18]
    """
    looks = [max(most, first)] if most < 2 * first else [first]
    while 2 * looks[-1] <= most:
        looks.append(2 * looks[-1])
    if 2 * most < 3 * looks[-1] and len(looks) > 1:
        looks.pop()  # a look right before the last one costs more than it tells
    return [*looks, most] if most > looks[-1] else looks


def levels(looks: Sequence[int], error: float) -> list[float]:
    """Return the level of the interval at each look, such that all intervals hold together.

    The error allowed at a look grows with the square of its share of the seeds. Its factor comes from
    simulated t-tests of pure noise with repeated looks, so the error over all looks is exact for normal
    differences (repeated confidence intervals, Jennison and Turnbull, 1989). Noise that all seeds share,
    such as that of a finite test split, makes the error smaller.

    Args:
        looks: numbers of seeds, rising.
        error: probability that any of the intervals misses the truth.

    Returns:
        The level of each look, such as 0.997 and 0.96.
    """
    shares = (np.array(looks) / looks[-1]) ** 2
    if error * SIMULATIONS < 100:  # too few simulations for this error: use Bonferroni's bound
        factor = error / float(shares.sum())
    else:
        factor = float(np.quantile(_ratios(looks, shares), error))
    return [1 - factor * float(share) for share in shares]


def _ratios(looks: Sequence[int], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the smallest p-value, divided by its look's share, of each simulated test of noise."""
    generator = np.random.default_rng(0)
    first = np.zeros(SIMULATIONS)
    second, before, ratios = np.zeros(SIMULATIONS), 0, []
    for look, share in zip(looks, shares, strict=True):
        for _ in range(look - before):
            drawn = generator.standard_normal(SIMULATIONS)
            first += drawn
            second += drawn**2
        mean = first / look
        spread = np.sqrt((second / look - mean**2) / (look - 1))
        ratios.append(2 * stats.t.sf(np.abs(mean) / spread, look - 1) / share)
        before = look
    least: NDArray[np.float64] = np.min(ratios, axis=0)
    return least
