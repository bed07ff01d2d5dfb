"""What an ablation says, and how it is kept: what each trick of a champion is worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_tricks.selection.arms import Family
from lightning_tricks.selection.intervals import LEVEL, Interval, difference
from lightning_tricks.selection.kept import Kept

Scores = Mapping[int, float]
"""Of one recipe, by the number of the seed."""


@dataclass(frozen=True)
class Speed:
    """How soon the trainings of a recipe reach a score."""

    epochs: float | None
    """The mean number of epochs, of those that reach it; None if none does."""
    reached: int
    """How many trainings reach it."""
    trainings: int

    def __str__(self) -> str:
        missed = self.trainings - self.reached
        if self.epochs is None:
            return "never"
        return f"{self.epochs:.1f}" + (f" ({missed} of {self.trainings} never)" if missed else "")


@dataclass(frozen=True)
class Effect:
    """What a trick is worth; or, of two, by how much they are worth more together than apart."""

    family: Family
    stages: tuple[str, ...]
    trick: str
    rate: float | None
    """The learning rate of the arm, the best of those tried."""
    score: Interval | None
    """Of the arm, over seeds; None if it was never trained to its end."""
    worth: Interval | None
    """In units of the score, more is better; None if it cannot be told."""
    speed: Speed
    """To the score that the recipe it is compared with has after half of its epochs."""

    @property
    def found(self) -> bool:
        """Whether there is an effect."""
        return self.worth is not None and self.worth.excludes_zero


@dataclass(frozen=True)
class Reference:
    """A recipe that arms are compared with."""

    name: str
    rate: float | None
    score: Interval | None
    speed: Speed


@dataclass(frozen=True)
class Ablation(Kept):
    """What each trick of a champion is worth, taken out of it and added to plain."""

    WHAT = "ablation"
    trial: int
    """The number of the champion's trial in the search."""
    seeds: int
    rates: int
    """How many learning rates were tried for each arm."""
    level: float
    """Of the intervals: so that all of them together are right in 95 of 100 ablations."""
    references: tuple[Reference, ...]
    effects: tuple[Effect, ...]

    def headline(self) -> str:
        """Say in a sentence which tricks matter."""
        own = [effect for effect in self.effects if effect.family == "leave one out"]
        if not own:
            return "Ablation: the champion is plain, and has no trick to take out."
        added = [effect for effect in self.effects if effect.family == "add one in"]
        of = f"of the champion's {len(own)} tricks, each at its own best learning rate"
        out, alone = _sentence("Taken out one by one", own), _sentence("Added to plain", added)
        return f"Ablation {of}. {out} {alone} A worth above 0 is for the better."


def _sentence(doing: str, effects: Sequence[Effect]) -> str:
    """Say of which tricks an effect was found."""
    found = [f"{effect.stages[0]} ({effect.worth})" for effect in effects if effect.found]
    rest = [effect.stages[0] for effect in effects if not effect.found]
    told = [f"what makes a difference is {', '.join(found)}"] if found else []
    told += [f"no effect was found of {', '.join(rest)}"] if rest else []
    return f"{doing}, {'; '.join(told)}."


def level_for(comparisons: int) -> float:
    """Return the level of each of several intervals that are right together in 95 of 100 cases.

    Bonferroni's correction (Dunn, 1961).
    """
    return 1 - (1 - LEVEL) / max(comparisons, 1)


def worth(better: Scores, worse: Scores, level: float, sign: int) -> Interval | None:
    """Return by how much one recipe's score is better than another's, seed by seed.

    Args:
        better: the scores of the recipe with the trick.
        worse: of the one without.
        level: of the interval.
        sign: -1 where a lower score is better.
    """
    both = sorted(better.keys() & worse.keys())
    if len(both) < 2:
        return None
    return difference([sign * better[s] for s in both], [sign * worse[s] for s in both], level)


def together(
    whole: Scores, one: Scores, other: Scores, neither: Scores, level: float, sign: int
) -> Interval | None:
    """Return by how much two tricks are worth more together than each alone beside the rest.

    Args:
        whole: the scores of the recipe with both tricks.
        one: without the one.
        other: without the other.
        neither: without both.
        level: of the interval.
        sign: -1 where a lower score is better.
    """
    both = sorted(whole.keys() & one.keys() & other.keys() & neither.keys())
    with_other = {seed: whole[seed] - one[seed] for seed in both}
    without = {seed: other[seed] - neither[seed] for seed in both}
    return worth(with_other, without, level, sign)


def target(curves: Sequence[Sequence[float]]) -> float | None:
    """Return the mean score that some trainings have after half of their epochs; None of none."""
    halves = [curve[(len(curve) - 1) // 2] for curve in curves if curve]
    return sum(halves) / len(halves) if halves else None


def speed(curves: Sequence[Sequence[float]], score: float | None, sign: int) -> Speed:
    """Return how many epochs some trainings take to a score.

    Args:
        curves: the score of each, epoch by epoch.
        score: to be reached.
        sign: -1 where a lower score is better.
    """
    taken = []
    for curve in curves:
        reached = [n for n, v in enumerate(curve, 1) if score is not None and sign * v >= sign * score]
        taken += reached[:1]
    return Speed(sum(taken) / len(taken) if taken else None, len(taken), len(curves))
