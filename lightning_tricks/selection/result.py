"""What a verdict says, and how it is kept."""

from collections.abc import Mapping
from dataclasses import dataclass

from lightning_tricks.selection.champion import Champion
from lightning_tricks.selection.intervals import Interval
from lightning_tricks.selection.kept import Kept


@dataclass(frozen=True)
class Row:
    """How good one record is, or several models together."""

    validation: Interval
    test: Interval | None
    """None where there is no test split, or it cannot be measured."""


@dataclass(frozen=True)
class Verdict(Kept):
    """Which record is the champion, and how good it is over seeds that took no part in choosing."""

    WHAT = "verdict"
    names: tuple[str, ...]
    """Of the records that were compared."""
    seeds: int
    """To choose with, in the first round, and as many again to report."""
    champion: Champion
    trial: int
    """The number of the champion's trial in the search."""
    rows: Mapping[str, Row]
    """Of `plain`, `baseline`, `champion` and `ensemble`, as far as they are there."""
    gain: Interval | None
    """The champion's score less the baseline's, paired by seed; None where that is the champion."""
    budget: int = 0
    """So many trainings were to be had for choosing; of those that the first round left, those that tied
    had a second one."""
    searched: int = 0
    """How many trials the search had then."""
    before: int = 0
    """How many verdicts of the study have looked at its test split before."""

    def headline(self, monitor: str, mode: str) -> str:
        """Say in a sentence what was found."""
        score = self.rows["champion"].validation if "champion" in self.rows else None
        name = "the baseline" if self.champion.name == "baseline" else self.champion.name
        if score is None:
            return f"Champion: {name} ({self.champion.why}); it was never trained to its end since."
        return (
            f"Champion: {name} ({self.champion.why}). Over {self.seeds} other seeds: {monitor} {score}."
            f"{self._beside(mode)}{self._used()}"
        )

    def _beside(self, mode: str) -> str:
        if self.gain is None:
            return ""
        sign = 1 if mode == "max" else -1
        if self.gain.excludes_zero:
            word = "better" if sign * self.gain.mean > 0 else "worse"
            return f" By these it is {word} than the baseline ({self.gain})."
        return f" By these alone it cannot be told apart from the baseline ({self.gain})."

    def _used(self) -> str:
        if not self.before:
            return ""
        times = "once" if self.before == 1 else f"{self.before} times"
        return f" The test split was looked at {times} before: it is no longer fresh."
