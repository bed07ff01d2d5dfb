"""How many trials a search holds: as many as the user asked for, or as its budget affords."""

import math
from collections.abc import Iterable, Sequence

from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.budget import Budget
from lightning_tricks.errors import InputError
from lightning_tricks.search.keys import OUTCOME, PARTS, PAUSE_AFTER, PLANNED
from lightning_tricks.search.optuna_internals import trials_of
from lightning_tricks.search.outcomes import is_repeat
from lightning_tricks.search.promotion import GOING_ON, LEAST, is_paused
from lightning_tricks.search.pruners import rung_of
from lightning_tricks.search.sampling.outlook import matters
from lightning_tricks.search.studies import trials_of_part
from lightning_tricks.selection.terms import Terms
from lightning_tricks.study.session import Session
from lightning_tricks.study.spending import Spent, spent_on
from lightning_tricks.study.trial_decisions import OpenTrial
from lightning_tricks.task.task import Task

FEWEST_TRIALS = 6
"""Minimum number of trials under a budget, however small it is."""
MEASURED = 3
"""Number of trials that measure how long an epoch takes, before anything is said of it."""
UNKNOWN = 64
"""Number of further trials that are planned before it is known how long one takes."""


class SearchPlan:
    """Decides how many trials a search holds.

    Under a budget, search, verdict and ablation get equal shares; what one leaves, the next one gets.
    The search ends when its share is spent, or when further trials can hardly matter. That decision is
    stored, so a program that is killed after it finishes the same trials.

    Args:
        session: the session of the search.
        n_trials: most trials.
        terms: the terms of the verdict that follows. None for a part of a study, whose trials are
            given: the budget then does not end it here.
        ablate: whether an ablation follows.
    """

    def __init__(
        self, session: Session, n_trials: int, terms: Terms | None = None, *, ablate: bool = False
    ) -> None:
        self.session, self.n_trials = session, n_trials
        self.budget = None if terms is None else session.spending.budget
        verdict = terms is not None and terms.finalists > 0
        self.stages = 1 + verdict + ablate
        self._least_later = terms.fewest * session.task.epochs if terms and verdict else 0
        """Fewest epochs of the stages that follow."""
        self.rung = rung_of(session.study, session.task.epochs)
        parts = () if self.budget is None else PARTS  # reading their trials takes long
        self._later = [spent_on(trials_of_part(session.study, part), 1) for part in parts]
        """What a verdict and an ablation took before this run, if the search goes on after them."""
        held = session.study.user_attrs.get(PLANNED, {})
        same = held.get("budget") == str(self.budget)
        self._decided: int | None = held.get("trials") if same else None
        self._said = same
        self._state: tuple[int, ...] = ()
        """The search's state when the number was last computed: reading all trials takes long."""
        self._known = 0

    def trials(self, drawn: int, running: Iterable[OpenTrial]) -> int:
        """Return the number of trials that the search will hold, as far as it is known now.

        Args:
            drawn: number of trials that were drawn, without repeats of earlier recipes.
            running: those that neither ended nor paused.
        """
        if self.budget is None:
            return self.n_trials
        running = list(running)
        state = (len(self.session.history), drawn, *(one.job.number for one in running))
        if self._decided is None and state != self._state:
            self._state = state
            self._known = self._planned(drawn, running)
        return min(self.n_trials, self._known if self._decided is None else self._decided)

    @property
    def most(self) -> int:
        """Maximum number of trials, as far as it is decided."""
        return self.n_trials if self._decided is None else min(self._decided, self.n_trials)

    @property
    def open(self) -> bool:
        """Whether the number is not known yet, because it is not known what a trial takes."""
        return not self._said and self.budget is not None

    def _planned(self, drawn: int, running: Sequence[OpenTrial]) -> int:
        more = max(self._affordable(running), FEWEST_TRIALS - drawn)
        self._say(drawn, more)
        if waiting := sum(map(_waits, trials_of(self.session.study))):
            return drawn + waiting + UNKNOWN  # these come first: it is decided once they are drawn
        if more < 1:
            self._decide(drawn, "its share of the budget is spent")
            return drawn
        if drawn >= FEWEST_TRIALS and not matters(self.session.study):
            self._decide(drawn, "further trials can hardly matter")
            return drawn
        return drawn + (UNKNOWN if math.isinf(more) else int(more))

    def _decide(self, drawn: int, why: str) -> None:
        """Store that no further trial is drawn."""
        self._decided = drawn
        self.session.study.set_user_attr(PLANNED, {"budget": str(self.budget), "trials": drawn})
        self.session.progress.print(f"no further trials after {drawn}: {why}")

    def _affordable(self, running: Iterable[OpenTrial]) -> float:
        """Return the number of further trials that the search's share affords; infinite if unknown."""
        trials, task = trials_of(self.session.study), self.session.task
        full = task.epochs * task.repeats
        first = full if self.rung is None else self.rung + 1
        begun = sum(full if one.job.contends else first for one in running)
        spent = spent_on(trials, task.repeats)
        on_way = self._reported(running)
        left = self._left([*spent, *on_way])
        begun -= sum(one.epochs for one in on_way)
        begun -= sum(one.epochs for one in spent_on((t for t in trials if _runs(t)), task.repeats))
        if self.rung is None:
            return (left - begun) / full
        told = [t for t in trials if t.state != TrialState.FAIL and not (is_repeat(t) or _waits(t))]
        gone = sum(t.user_attrs.get(PAUSE_AFTER, -1) is None for t in told)
        pausing = sum(PAUSE_AFTER in t.user_attrs for t in told)
        given = sum(_waits(t) and PAUSE_AFTER not in t.user_attrs for t in trials)
        left, rest = left - begun - given * (full - first), full - first
        # One in six goes on, and at least three: the larger of the two costs decides.
        by_share = (left - (pausing / GOING_ON - gone) * rest) / (first + rest / GOING_ON)
        by_least = (left - (LEAST - gone) * rest) / first
        return min(by_share, by_least)

    def _reported(self, running: Iterable[OpenTrial]) -> list[Spent]:
        """Return what running trials took so far, to know the time of an epoch."""
        spending, repeats = self.session.spending, self.session.task.repeats
        if not spending.measures:
            return []
        now = spending.elapsed
        epochs = sum(
            (repeats if one.job.contends else 1) * (len(one.epochs) - one.resumed) for one in running
        )
        return [Spent(epochs, now, now)] if epochs else []

    def _left(self, spent: list[Spent]) -> float:
        """Return the number of epochs that are left for the search, of its share and of all."""
        spending = self.session.spending
        later = 0 if spending.measures else sum(one.epochs for part in self._later for one in part)
        share = spending.left(spent, 1 / self.stages, self._later)
        return min(share, spending.left(spent) - later - self._least_later)

    def _say(self, drawn: int, more: float) -> None:
        """Say once what the budget affords."""
        first = len(self.session.history) < MEASURED and self.session.spending.measures
        if self._said or first or math.isinf(more):
            return
        self._said = True
        spending, epochs = self.session.spending, self.session.task.epochs
        spent = spent_on(self.session.history, self.session.task.repeats)
        later = (spending.left(spent) - spending.left(spent, 1 / self.stages)) / epochs
        trainings = f" and {max(later, 0):.0f} trainings after the search" if self.stages > 1 else ""
        self.session.progress.print(
            f"the budget of {spending.budget} affords about {max(drawn + more, 0):.0f} trials{trainings}"
        )


def _waits(trial: FrozenTrial) -> bool:
    """Return whether a trial waits to be trained: it was given, or a run that was killed drew it."""
    return trial.state == TrialState.WAITING and not is_paused(trial)


def _runs(trial: FrozenTrial) -> bool:
    """Return whether a trial goes on after a pause."""
    return trial.state == TrialState.RUNNING and OUTCOME in trial.user_attrs


def check_budget(budget: Budget | None, task: Task, terms: Terms) -> None:
    """Refuse a number of epochs that is too small for a few trials and a verdict.

    Raises:
        InputError: if it is too small.
    """
    trainings = FEWEST_TRIALS * task.repeats + (terms.fewest if terms.finalists else 0)
    least = trainings * task.epochs
    if budget is not None and budget.unit == "epochs" and budget.amount < least:
        verdict = f" and a verdict of {terms.fewest} trainings" if terms.finalists else ""
        raise InputError(
            f"the budget must be at least {least} epochs, for {FEWEST_TRIALS} trials{verdict} (got "
            f"{budget}); fewer finalists, seeds, repeats or epochs need less"
        )
