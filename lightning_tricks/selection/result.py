"""What a verdict says, and how it is kept."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from lightning_tricks.budget import Budget
from lightning_tricks.scores import Mode
from lightning_tricks.selection.intervals import Interval
from lightning_tricks.selection.kept import Kept
from lightning_tricks.selection.terms import Terms
from lightning_tricks.tricks.recipe import Tricks

BASELINE, YOURS = "baseline", "yours"
"""Names of what the user has: a LightningModule as it is, or else the recipe to begin with."""
ENSEMBLE = " ensemble"
"""What the name of a row ends in that is of several models together."""
WORDS = {BASELINE: "the baseline", YOURS: "your module as it is"}
"""What they are called in sentences."""
Label = Literal["Confirmed gain", "Not confirmed", "No gain found"]


@dataclass(frozen=True)
class Row:
    """How good one recipe is, or an ensemble of its models."""

    validation: Interval | None
    """None for an ensemble whose members each had a validation split of their own, and for a recipe
    that was never trained to its end."""
    test: Interval | None
    """None where there is no test split, or it cannot be measured."""

    @property
    def unfinished(self) -> bool:
        """Whether the recipe was never trained to its end."""
        return self.validation is self.test is None


@dataclass(frozen=True)
class Gain:
    """By how much the candidate is better than what the user has, over fresh seeds."""

    interval: Interval
    """In the unit of the score; above 0 is better, whatever the mode."""
    metric: str
    """Name of the score, such as `test/accuracy`."""
    seeds: int
    """Number of fresh seeds, none of which took part in choosing."""
    samples: int | None
    """Number of samples that the interval allows for; None if it is over seeds only."""
    chose: bool
    """Whether these samples took part in choosing. Then the interval is wider, to allow for that."""
    splits: str = "test"
    """The splits of these samples."""
    more: int | None = None
    """Number of further seeds that would confirm a gain of this size; None if no number would."""

    def label(self, margin: float) -> Label:
        """Return what the interval says of a gain.

        Args:
            margin: the smallest difference that matters.
        """
        found = self.interval
        if found.low is not None and found.low > 0:
            return "Confirmed gain"
        matters = found.high is None or found.high > margin
        return "Not confirmed" if found.mean > 0 and matters else "No gain found"

    @property
    def method(self) -> str:
        """Over what the gain was measured, in sentences."""
        chose = " These samples chose the recipe, too, so the interval is wider." if self.chose else ""
        over = f"{self.seeds} fresh seeds"
        if self.samples is None:
            return f"The gain is over {over}; the interval is over seeds only.{chose}"
        untouched = "" if self.chose else " that took no part in choosing"
        return f"The gain is over {over} and {self.samples} {self.splits} samples{untouched}.{chose}"

    def __str__(self) -> str:
        return f"{self.interval.signed} {self.metric}"


def incumbent_of(names: Collection[str]) -> str:
    """Return the name of what the user has, among the names of recipes that were trained."""
    return YOURS if YOURS in names else BASELINE


def simplicity(recipe: Tricks) -> int:
    """Return the number of stages that are on: fewer is simpler."""
    return len(recipe.differences(type(recipe).plain()))


@dataclass(frozen=True)
class Verdict(Kept):
    """Which recipe is the champion, and whether it is known to be better than what the user has.

    Example:
        summary = optimize(study, task, n_trials=40, finalists=6)
        print(summary.verdict.label, summary.verdict.gain.interval)
    """

    WHAT = "verdict"
    label: Label
    champion: str
    """Name of the recipe to use: what the user has, unless a gain was confirmed."""
    trial: int
    """Number of the champion's trial in the search."""
    candidate: str | None
    """Name of the recipe that was compared with what the user has; None if there was none to compare."""
    candidate_trial: int | None
    """Number of the candidate's trial in the search."""
    gain: Gain | None
    """The candidate's; None if one of the two was not trained to its end."""
    ensemble_gain: Interval | None
    """By how much the candidate's ensemble is better than that of what the user has, over
    samples; None if there are no ensembles."""
    margin: float
    """Smallest difference that matters, in the unit of the score."""
    why: str
    """What else there is to say of the champion, in sentences."""
    names: tuple[str, ...]
    """Names of the recipes that ran again: finalists, the best by evidence first; then references."""
    terms: Terms
    """What the user asked for."""
    budget: int
    """Number of trainings that the verdict could take."""
    rows: Mapping[str, Row]
    """How good recipes are, and their ensembles: `plain`, `baseline`, `yours`, the candidate."""
    choosing: int = 0
    """Number of trainings that could choose the candidate."""
    searched: int = 0
    """Number of trials that the search had."""
    spent: int = 0
    """Number of trainings that the verdict took."""
    before: int = 0
    """Number of verdicts of the study that looked at its test split before."""

    def covers(self, terms: Terms) -> bool:
        """Return whether this verdict answers other terms: the same, and a budget that was spent."""
        same = replace(terms, budget=0, within="") == replace(self.terms, budget=0, within="")
        return same and terms.budget <= self.spent and _holds(self.terms.within, terms.within)

    @property
    def incumbent(self) -> str:
        """Name of what the user has, which the candidate is compared with."""
        return incumbent_of(self.names)

    @property
    def confirmed(self) -> bool:
        """Whether the candidate is known to be better than what the user has."""
        return self.label == "Confirmed gain"

    @property
    def rival(self) -> int | None:
        """Number of the candidate's trial, if the candidate is not the champion."""
        return None if self.champion == self.candidate else self.candidate_trial

    @property
    def changer(self) -> str | None:
        """Name of the recipe that is new: the champion, or the candidate that is not confirmed."""
        return self.candidate if self.champion == self.incumbent else self.champion

    @property
    def changer_trial(self) -> int | None:
        """Number of that recipe's trial in the search."""
        return self.candidate_trial if self.champion == self.incumbent else self.trial

    def title(self, name: str) -> str:
        """Return the name of a row as it is shown, with the champion's mark."""
        return f"{name} (champion)" if name == self.champion else name

    def headline(self) -> str:
        """Return the answer: the label, the gain with its interval, and what to use."""
        return f"{self.label}: {self._found()} {self.why}".strip()

    @property
    def method(self) -> str:
        """How the answer was found, and what would make it surer, in sentences."""
        how = "" if self.gain is None else self.gain.method
        sentences = (how, self._at_most(), self._more(), self._used())
        return " ".join(sentence for sentence in sentences if sentence)

    def dropped_but_higher(self, mode: Mode) -> list[str]:
        """Return a sentence for each recipe that did better than the champion, but was not compared.

        Only one recipe is compared with what the user has. The others were dropped while it was chosen,
        or are only shown.
        """
        means = {
            name: score.mean
            for name, row in self.rows.items()
            if not name.endswith(ENSEMBLE) and (score := row.test or row.validation) is not None
        }
        own = means.pop(self.champion, None)
        others = {
            name: mean for name, mean in means.items() if name not in (self.incumbent, self.candidate)
        }
        return [
            f"{name} did better in this table than {self.champion}, but was not compared: it may be the "
            "better choice."
            for name, mean in others.items()
            if own is not None and (mean > own if mode == "max" else mean < own)
        ]

    def _found(self) -> str:
        have = WORDS[self.incumbent]
        use = f"keep {have}." if self.champion == self.incumbent else f"use {self.champion}."
        if self.candidate is None or self.gain is None:
            return use
        which = ", the best other recipe" if self.label == "No gain found" else ""
        return f"{self.gain} over {have}, with {self.candidate}{which}. {use.capitalize()}"

    def _at_most(self) -> str:
        """Say how large a gain may be that is not confirmed."""
        high = None if self.gain is None else self.gain.interval.high
        if self.label != "Not confirmed" or high is None:
            return ""
        return f"The interval rules out a gain above {Interval(high, None, None)}."

    def _more(self) -> str:
        """Say what it would take to confirm a gain that is not."""
        if self.gain is None or self.label != "Not confirmed":
            return ""
        half = self.gain.interval.half_width
        if self.terms.margin is not None and half is not None and half <= self.margin:
            return "The interval is as narrow as --margin asks for."
        if self.gain.more is None:
            return "Seeds alone will not tell: the samples are too few for a gain of this size."
        more, budget = self.gain.more, (self.spent or self.budget) + 2 * self.gain.more
        seeds = "1 more seed" if more == 1 else f"{more} more seeds"
        if self.terms.within:
            return f"About {seeds} would tell: a larger budget trains them."
        return f"About {seeds} would tell: verdict_budget={budget}, or --verdict-budget {budget}."

    def _used(self) -> str:
        if not self.before:
            return ""
        times = "once" if self.before == 1 else f"{self.before} times"
        return f"Earlier verdicts looked at these samples {times}; the interval allows for that."


def _holds(larger: str, smaller: str) -> bool:
    """Return whether one budget is at least another; none at all is the smallest."""
    if smaller in ("", larger) or not larger:
        return smaller in ("", larger)
    one, other = Budget.read(larger), Budget.read(smaller)
    return one.unit == other.unit and one.amount >= other.amount
