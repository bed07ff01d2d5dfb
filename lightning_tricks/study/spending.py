"""What a study has spent of its budget, and what is left."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import optuna
from optuna.trial import FrozenTrial

from lightning_tricks.budget import Budget
from lightning_tricks.search.keys import PARTS, PAUSE_AFTER
from lightning_tricks.search.optuna_internals import trials_of
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.studies import trials_of_part

CLOSING, MOST_CLOSING = 0.05, 20.0
"""Share of a time budget for what follows the last training, such as the report; and its maximum, in
seconds."""


class Spent(NamedTuple):
    """What a trial took."""

    epochs: int
    """Number of epochs of all its trainings."""
    at: float
    """Seconds that the study had run for when the trial ended or paused."""
    began: float
    """The same for its begin; later than that, if it paused in between."""


def spent_on(trials: Iterable[FrozenTrial], repeats: int) -> list[Spent]:
    """Return what finished and paused trials took: one that repeats a recipe nothing, others an epoch.

    Args:
        trials: the trials of a search, or of a part.
        repeats: number of trainings of a trial that was trained to its end.
    """
    found = []
    for trial in trials:
        outcome = Outcome.read(trial)
        if outcome is not None and outcome.duplicate_of is None:
            trainings = repeats if trial.user_attrs.get(PAUSE_AFTER) is None else 1
            epochs, at = max(len(outcome.epochs), 1) * trainings, outcome.elapsed
            found.append(Spent(epochs, at, at - outcome.seconds))
    return found


def seconds_of(study: optuna.Study) -> float:
    """Return for how many seconds a study has run, with its verdict and ablation."""
    trials = [*trials_of(study), *(t for part in PARTS for t in trials_of_part(study, part))]
    outcomes = [outcome for trial in trials if (outcome := Outcome.read(trial)) is not None]
    return max((outcome.elapsed for outcome in outcomes), default=0.0)


@dataclass(frozen=True)
class Spending:
    """What is left of a budget, in epochs.

    A time becomes a number of epochs by the time that an epoch took so far, all else included.
    """

    budget: Budget | None
    """None for no limit."""
    before: float = 0.0
    """Seconds that the study had run for before this run."""
    past: tuple[Spent, ...] = ()
    """What the earlier stages took."""
    begin: float = field(default_factory=time.monotonic)
    """When this run began, by `time.monotonic`."""

    @property
    def elapsed(self) -> float:
        """Seconds that the study has run for, earlier runs included."""
        return self.before + time.monotonic() - self.begin

    @property
    def measures(self) -> bool:
        """Whether an epoch's time must be measured to know what is left."""
        return self.budget is not None and self.budget.unit == "seconds"

    def after(self, stage: Iterable[Spent]) -> Self:
        """Return the spending of the next stage."""
        return replace(self, past=(*self.past, *stage))

    def left(
        self, stage: Sequence[Spent], share: float = 1.0, later: Sequence[Sequence[Spent]] = ()
    ) -> float:
        """Return the number of epochs that are left of a share of the budget; infinite if unknown.

        Args:
            stage: what this stage's trials took.
            share: the share of the budget.
            later: what the stages after this one took, if it goes on after them: not of its share.
        """
        if self.budget is None:
            return math.inf
        if not self.measures:
            return share * self.budget.amount - sum(one.epochs for one in (*self.past, *stage))
        others = max((one.at for past in (self.past, *later) for one in past), default=0.0)
        latest = [one for one in stage if one.at > others]
        pace = _seconds_of_epoch(latest) or _seconds_of_epoch(stage) or _seconds_of_epoch(self.past)
        closing = min(CLOSING * self.budget.amount, MOST_CLOSING)
        elapsed = self.elapsed - sum(map(_seconds, later))
        return (share * (self.budget.amount - closing) - elapsed) / pace if pace else math.inf


def _seconds(trials: Sequence[Spent]) -> float:
    """Return how long trials took together, from the first one's begin to the last one's end."""
    return max(t.at for t in trials) - min(t.began for t in trials) if trials else 0.0


def _seconds_of_epoch(trials: Sequence[Spent]) -> float | None:
    """Return the mean time of an epoch while trials ran, however many at a time; None if unknown."""
    epochs = sum(one.epochs for one in trials)
    return _seconds(trials) / epochs if epochs else None
