"""The terms of a verdict, which the user sets."""

import math
from dataclasses import dataclass

from lightning_tricks.errors import InputError, whole_number
from lightning_tricks.selection.halving import Halving

FEWEST = 3
"""Minimum number of seeds to estimate a spread."""


@dataclass(frozen=True)
class Terms:
    """The terms of a verdict, which the user sets.

    Raises:
        InputError: if a value is out of its range.
    """

    finalists: int = 6
    """Number of best recipes that run again, in addition to the baseline; 0 for no verdict."""
    seeds: int = 5
    """Minimum number of fresh seeds that compare the candidate with the baseline."""
    budget: int = 0
    """Maximum number of trainings in the verdict; 0 for one per trial of the search and repeat. Without
    a margin, a budget is spent completely."""
    margin: float | None = None
    """Smallest difference that matters, in the unit of the score; None for half the spread of seeds."""
    prefer_simple: bool = False
    """Whether a simpler recipe becomes the champion if it is not worse by more than the margin."""
    within: str = ""
    """Budget of the whole study, which decides in place of `budget`; empty for none."""

    @property
    def stops_by_width(self) -> bool:
        """Whether the verdict ends early once the interval is narrower than the margin."""
        return self.margin is not None or not (self.budget or self.within)

    @property
    def fewest(self) -> int:
        """Minimum number of trainings of a verdict, with those of plain and of the baseline."""
        compared = 3 if self.prefer_simple else 2
        choosing = Halving([str(number) for number in range(self.finalists)], 0).most
        return choosing + compared * self.seeds + 2 * FEWEST

    def __post_init__(self) -> None:
        for name, least in {"finalists": 0, "seeds": FEWEST, "budget": 0}.items():
            shown = "verdict_budget" if name == "budget" else name
            object.__setattr__(self, name, whole_number(shown, getattr(self, name), least))
        if self.budget and not self.finalists:
            raise InputError("a verdict's budget needs a verdict: set finalists above 0")
        if self.budget and self.within:
            raise InputError(
                "a study's budget covers its verdict: give budget or verdict_budget, not both"
            )
        margin = self.margin
        if margin is not None and not (
            isinstance(margin, (int, float)) and math.isfinite(margin) and margin > 0
        ):
            raise InputError(
                f"margin must be a number above 0, in the unit of the score (got {margin!r})"
            )
