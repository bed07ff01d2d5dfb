"""The result of an ablation: what each trick of a champion is worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_tricks.selection.arms import Family
from lightning_tricks.selection.intervals import LEVEL, Interval, difference
from lightning_tricks.selection.kept import Kept

Scores = Mapping[int, float]
"""Scores of one recipe, by seed index."""


@dataclass(frozen=True)
class Speed:
    """How fast the trainings of a recipe reach a score."""

    epochs: float | None
    """Mean number of epochs of the trainings that reach it; None if none does."""
    reached: int
    """Number of trainings that reach it."""
    trainings: int

    def __str__(self) -> str:
        missed = self.trainings - self.reached
        if self.epochs is None:
            return "never"
        return f"{self.epochs:.1f}" + (f" ({missed} of {self.trainings} never)" if missed else "")


@dataclass(frozen=True)
class Effect:
    """What a trick is worth; for a pair, how much the combined worth exceeds the sum of the two."""

    family: Family
    stages: tuple[str, ...]
    trick: str
    rate: float | None
    """Best learning rate tried for the arm."""
    score: Interval | None
    """Score of the arm, over seeds; None without a complete trial."""
    worth: Interval | None
    """Worth in units of the score, higher is better; None if unknown."""
    speed: Speed
    """How fast the arm reaches the score of its reference recipe at half of the epochs."""

    @property
    def found(self) -> bool:
        """Whether an effect was found: the interval excludes 0."""
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
    """What each trick of a champion is worth, when taken out of it and when added to plain."""

    WHAT = "ablation"
    trial: int
    """Number of the champion's trial in the search."""
    seeds: int
    rates: int
    """Number of learning rates tried for each arm."""
    level: float
    """Level of each interval: all of them together are right in 95% of ablations."""
    references: tuple[Reference, ...]
    effects: tuple[Effect, ...]

    def headline(self) -> str:
        """Return a few sentences that say which tricks matter."""
        own = [effect for effect in self.effects if effect.family == "leave one out"]
        if not own:
            return "Ablation: the champion is plain, and has no trick to take out."
        added = [effect for effect in self.effects if effect.family == "add one in"]
        of = f"of the champion's {len(own)} tricks, each at its own best learning rate"
        out, alone = _sentence("Taken out one by one", own), _sentence("Added to plain", added)
        return f"Ablation {of}. {out} {alone} A worth above 0 means that the trick helps."


def _sentence(doing: str, effects: Sequence[Effect]) -> str:
    """Return a sentence that says which tricks have an effect."""
    found = [f"{effect.stages[0]} ({effect.worth})" for effect in effects if effect.found]
    rest = [effect.stages[0] for effect in effects if not effect.found]
    told = [f"these make a difference: {', '.join(found)}"] if found else []
    told += [f"no effect was found for {', '.join(rest)}"] if rest else []
    return f"{doing}, {'; '.join(told)}."


def level_for(comparisons: int) -> float:
    """Return the level at which several intervals are all right in 95% of cases.

    This is Bonferroni's correction (Dunn, 1961).
    """
    return 1 - (1 - LEVEL) / max(comparisons, 1)


def worth(better: Scores, worse: Scores, level: float, sign: int) -> Interval | None:
    """Return how much better one recipe's score is than another's, paired by seed.

    Args:
        better: scores of the recipe with the trick.
        worse: scores of the recipe without it.
        level: level of the interval.
        sign: -1 if lower scores are better, else 1.
    """
    both = sorted(better.keys() & worse.keys())
    if len(both) < 2:
        return None
    return difference([sign * better[s] for s in both], [sign * worse[s] for s in both], level)


def together(
    whole: Scores, one: Scores, other: Scores, neither: Scores, level: float, sign: int
) -> Interval | None:
    """Return how much the combined worth of two tricks exceeds the sum of the two.

    Args:
        whole: scores of the recipe with both tricks.
        one: scores without the first.
        other: scores without the second.
        neither: scores without both.
        level: level of the interval.
        sign: -1 if lower scores are better, else 1.
    """
    both = sorted(whole.keys() & one.keys() & other.keys() & neither.keys())
    with_other = {seed: whole[seed] - one[seed] for seed in both}
    without = {seed: other[seed] - neither[seed] for seed in both}
    return worth(with_other, without, level, sign)


def target(curves: Sequence[Sequence[float]]) -> float | None:
    """Return the trainings' mean score after half of their epochs; None without trainings."""
    halves = [curve[(len(curve) - 1) // 2] for curve in curves if curve]
    return sum(halves) / len(halves) if halves else None


def speed(curves: Sequence[Sequence[float]], score: float | None, sign: int) -> Speed:
    """Return how many epochs the trainings take to reach a score.

    Args:
        curves: scores of each training, epoch by epoch.
        score: the score to reach.
        sign: -1 if lower scores are better, else 1.
    """
    taken = []
    for curve in curves:
        reached = [n for n, v in enumerate(curve, 1) if score is not None and sign * v >= sign * score]
        taken += reached[:1]
    return Speed(sum(taken) / len(taken) if taken else None, len(taken), len(curves))
