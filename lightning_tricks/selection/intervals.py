"""Means and differences of a few scores, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
DIGITS, MOST_DIGITS = 4, 8
"""Number of digits after the point that are shown: usually, and if an interval almost touches 0."""
FEWER_DIGITS = ((10_000, 0), (1_000, 1), (100, 2))
"""Number of digits after the point from some size on."""
HUGE = 1e6
"""Size from which numbers are shown with an exponent."""


@dataclass(frozen=True)
class Interval:
    """A mean, with the bounds of its confidence interval (None if unknown)."""

    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        half = self.half_width
        largest = max(abs(self.mean), half or 0.0)
        if largest >= HUGE:
            return f"{self.mean:.3e}" if half is None else f"{self.mean:.3e} ± {half:.1e}"
        fewest = next((digits for least, digits in FEWER_DIGITS if largest >= least), DIGITS)
        if half is None:
            return f"{self.mean:.{fewest}f}"
        digits = next((n for n in range(fewest, MOST_DIGITS) if self._is_clear(half, n)), MOST_DIGITS)
        return f"{self.mean:.{digits}f} ± {half:.{digits}f}"

    def _is_clear(self, half: float, digits: int) -> bool:
        """Whether the rounded numbers show, too, that the interval excludes 0, or that it does not."""
        return (round(abs(self.mean), digits) > round(half, digits)) == self.excludes_zero

    @property
    def signed(self) -> str:
        """It in words, as a difference: with a plus where it is one."""
        return str(self) if self.mean < 0 else f"+{self}"

    @property
    def half_width(self) -> float | None:
        """Half the distance between the bounds; None if they are unknown."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def excludes_zero(self) -> bool:
        """Whether both bounds are on the same side of 0; false if they are unknown."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Return the mean of independent values, with the interval of Student's t (Student, 1908).

    Args:
        values: one or more values; the interval of a single one has no bounds.
        level: probability that the interval contains the true mean.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, None, None)
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half)


def difference(scores: Sequence[float], others: Sequence[float], level: float = LEVEL) -> Interval:
    """Return the mean difference of scores, paired by seed."""
    return mean_interval(np.subtract(scores, others).tolist(), level)
