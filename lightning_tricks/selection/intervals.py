"""Means with intervals, and tests of differences, from a few scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """A mean, and the bounds between which the true one lies in 95 of 100 cases; None if unknown."""

    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.4f}"
        return f"{self.mean:.4f} ± {(self.high - self.low) / 2:.4f}"

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference is surely there."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Return the mean of independent values with the interval of Student's t (Student, 1908).

    Args:
        values: one or more; of one alone the interval has no bounds.
        level: in how many of all cases the true mean is to lie inside.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, None, None)
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half)


def difference(scores: Sequence[float], others: Sequence[float], level: float = LEVEL) -> Interval:
    """Return the mean difference of scores with the same seeds, pair by pair."""
    return mean_interval(np.subtract(scores, others).tolist(), level)


def chance(scores: Sequence[float], others: Sequence[float]) -> float:
    """Return how likely so much better scores are if there is no true difference.

    The one-sided paired t-test: pairs have the same seed, more is better.
    """
    gaps = np.subtract(scores, others)
    if len(gaps) < 2 or not gaps.any():
        return 1.0
    spread = float(np.std(gaps, ddof=1))
    if spread <= 1e-12 * float(np.abs(gaps).max()):
        return 0.0 if gaps[0] > 0 else 1.0
    return float(stats.ttest_rel(scores, others, alternative="greater").pvalue)


def bootstrap(
    measure: Callable[[NDArray[Any], NDArray[Any]], float],
    outputs: Sequence[NDArray[Any]],
    targets: NDArray[Any],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return the mean score of some models with an interval for another test set and other seeds.

    Models and samples are drawn again with replacement, both at once (Owen, 2007). Where that makes no
    difference, as for models that are right about each of a few samples, the bounds are unknown: of
    others nothing was seen.

    Args:
        measure: the score of outputs and targets.
        outputs: of each model, of shape (N, …).
        targets: of shape (N, …).
        seed: of what is drawn.
        resamples: how often.
    """
    generator = np.random.default_rng(seed)
    mean = float(np.mean([measure(output, targets) for output in outputs]))
    draws = []
    for _ in range(resamples):
        places = generator.integers(len(targets), size=len(targets))
        chosen = generator.integers(len(outputs), size=len(outputs))
        some = targets[places]
        scores = {int(model): measure(outputs[model][places], some) for model in set(chosen)}
        draws.append(np.mean([scores[int(model)] for model in chosen]))
    if min(draws) == max(draws):
        return Interval(mean, None, None)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high))
