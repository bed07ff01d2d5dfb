"""The paused trials of a search: they go on when it is their turn, or end."""

from dataclasses import replace

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.search import keys
from lightning_tricks.search.optuna_internals import live, requeue, take_up, trials_of
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.promotion import hopeless, promotable
from lightning_tricks.search.pruners import rung_of
from lightning_tricks.search.studies import paused
from lightning_tricks.study.session import Session
from lightning_tricks.study.trial_decisions import OpenTrial
from lightning_tricks.trial.job import Job
from lightning_tricks.tricks.recipe import Tricks


class Pauses:
    """The paused trials of a search.

    A paused trial keeps its checkpoint. In Optuna it is WAITING, with its reports and its outcome so
    far, so all this can be read back after a crash.

    Args:
        session: the session of the study.
    """

    def __init__(self, session: Session) -> None:
        self.study, self._session = session.study, session
        self.rung = rung_of(self.study, session.task.epochs) if session.searches else None
        trials = [] if self.rung is None else paused(self.study)
        self._paused = {trial.number: self._read(trial) for trial in trials}
        self._moved = 0
        """Number of times that a trial paused or went on in this run."""
        self._asked: dict[str, object] = {}
        """The study's state when each question was last answered."""

    def __len__(self) -> int:
        return len(self._paused)

    @property
    def noted(self) -> dict[str, int]:
        """The attributes of a new trial; given trials, such as the references, do not pause."""
        return {} if self.rung is None else {keys.PAUSE_AFTER: self.rung}

    def after(self, trial: optuna.Trial) -> int | None:
        """Return the number of the epoch after which a trial pauses; None if it trains to the end."""
        held: int | None = trial.user_attrs.get(keys.PAUSE_AFTER)
        return None if self.rung is None else held

    def waits(self, trial: FrozenTrial) -> bool:
        """Return whether a trial waits to be taken up, and is not paused."""
        return trial.state == TrialState.WAITING and trial.number not in self._paused

    def outcome_of(self, tricks: Tricks) -> tuple[int, Outcome] | None:
        """Return the paused trial of a recipe, and its outcome as if it had ended; None without one."""
        for number, one in self._paused.items():
            if one.job.tricks == tricks and (outcome := Outcome.read(one.trial)) is not None:
                return number, _ended(outcome)
        return None

    def _is_new(self, question: str, given: object) -> bool:
        """Return whether a question has another answer than before: reading all trials takes long."""
        state = (len(self._session.history), self._moved, given)
        known, self._asked[question] = self._asked.get(question), state
        return state != known

    def add(self, one: OpenTrial, outcome: Outcome) -> None:
        """Pause a trial."""
        one.trial.set_user_attr(keys.OUTCOME, outcome.__dict__)
        one.resumed = len(one.epochs)
        requeue(self.study, one.trial)
        one.submitted = False
        self._paused[one.job.number] = one
        self._moved += 1

    def going_on(self, *, at_end: bool) -> list[OpenTrial]:
        """Take up the trials whose turn it is, and return them; see `promotable`."""
        if self.rung is None or not self._is_new("going on", at_end):
            return []
        trials, direction = trials_of(self.study), self.study.direction
        numbers = promotable(trials, self.rung, direction, at_end=at_end)
        return [self._take_up(number) for number in numbers]

    def _take_up(self, number: int) -> OpenTrial:
        one = self._paused.pop(number)
        self._moved += 1
        one.trial.set_user_attr(keys.PAUSE_AFTER, None)
        one.trial = take_up(self.study, trials_of(self.study)[number])
        one.job = replace(one.job, pause_after=None)
        return one

    def ending(self, n_trials: int) -> list[tuple[OpenTrial, Outcome]]:
        """Remove the trials that cannot go on, and return them with their outcomes.

        Args:
            n_trials: number of trials that the study will hold.
        """
        if self.rung is None or not self._is_new("ending", n_trials):
            return []
        numbers = hopeless(trials_of(self.study), self.rung, self.study.direction, n_trials)
        return [self._end(number) for number in numbers]

    def all(self) -> list[tuple[OpenTrial, Outcome]]:
        """Remove all, and return them with their outcomes."""
        return [self._end(number) for number in list(self._paused)]

    def _end(self, number: int) -> tuple[OpenTrial, Outcome]:
        one = self._paused.pop(number)
        outcome = Outcome.read(trials_of(self.study)[number])
        assert outcome is not None  # it paused
        one.trial = take_up(self.study, trials_of(self.study)[number])  # Optuna ends only running trials
        return one, _ended(outcome)

    def _read(self, trial: FrozenTrial) -> OpenTrial:
        """Return a trial that paused in an earlier run."""
        outcome = Outcome.read(trial)
        assert outcome is not None  # it paused
        recipe = self._session.task.tricks.parse(outcome.recipe)
        path = self._session.folder.checkpoint(trial.number)
        job = Job(trial.number, recipe, outcome.seed, path, trial.user_attrs[keys.PAUSE_AFTER])
        return OpenTrial.of(live(self.study, trial), job, reported=outcome.history[-1].number)


def _ended(outcome: Outcome) -> Outcome:
    """Return the outcome of a paused trial that does not go on."""
    reason = f"paused after epoch {len(outcome.epochs)}, and others were better"
    return replace(outcome, state="pruned", reason=reason)
