"""A study's finished trials, and the best of them."""

from collections.abc import Iterator, Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.errors import InputError
from lightning_tricks.scores import Mode
from lightning_tricks.search.observer import Observer
from lightning_tricks.search.outcomes import Outcome, best_of, is_repeat, key
from lightning_tricks.tricks.recipe import Tricks


class History(Observer):
    """The finished trials by number, in memory: a storage takes long to list them.

    Args:
        mode: whether lower or higher scores are better.
    """

    def __init__(self, mode: Mode) -> None:
        self.best: FrozenTrial | None = None
        self.counted = 0
        """Number of finished trials, without repeats of an earlier recipe."""
        self.repeats_in_a_row = 0
        """Number of latest trials in a row that repeat an earlier recipe."""
        self._mode = mode
        self._trials: dict[int, FrozenTrial] = {}
        self._scored = False
        """Whether any trial has a score."""
        self._first: dict[str, int] = {}
        """For each recipe's key, the number of its first trial that did not fail."""

    def __len__(self) -> int:
        return len(self._trials)

    def __iter__(self) -> Iterator[FrozenTrial]:
        """Iterate in the order of numbers, which does not depend on which trial ended first."""
        return iter([self._trials[number] for number in sorted(self._trials)])

    def __getitem__(self, number: int) -> FrozenTrial:
        return self._trials[number]

    def ended(self, trial: FrozenTrial, outcome: Outcome) -> None:
        del outcome
        self.add(trial)

    def add(self, trial: FrozenTrial) -> None:
        """Add a trial that ended."""
        self._trials[trial.number] = trial
        repeats = is_repeat(trial)
        self.counted += not repeats
        self.repeats_in_a_row = self.repeats_in_a_row + 1 if repeats else 0
        outcome = Outcome.read(trial)
        self._scored |= outcome is not None and bool(outcome.epochs)
        if outcome is not None and trial.state != TrialState.FAIL:
            self._first.setdefault(outcome.key, trial.number)
        rivals = [t for t in (self.best, trial) if t is not None]
        self.best = best_of(rivals, self._mode)

    def outcome_of(self, tricks: Tricks) -> tuple[int, Outcome] | None:
        """Return a recipe's first trial that did not fail, and its outcome; None if there is none."""
        number = self._first.get(key(tricks.model_dump()))
        if number is None:
            return None
        outcome = Outcome.read(self._trials[number])
        assert outcome is not None  # else its recipe would not be known
        return number, outcome

    @staticmethod
    def recipe_of(trial: FrozenTrial) -> Mapping[str, Any]:
        """Return the recipe of a finished trial, as plain data."""
        outcome = Outcome.read(trial)
        assert outcome is not None  # it was trained
        return outcome.recipe

    def check(self, least: int) -> None:
        """Give up if all trials failed or none has a score: the cause is then not the tricks.

        Args:
            least: minimum number of trials before it gives up.

        Raises:
            InputError: if all trials failed or none has a score.
        """
        if len(self) < least or (self._first and self._scored):
            return
        outcome = Outcome.read(next(reversed(self._trials.values())))
        why = outcome.reason if outcome else "no reason"
        if all(trial.state == TrialState.FAIL for trial in self):
            raise InputError(f"the first {len(self)} trials all failed, the last one with: {why}")
        if not self._scored:
            raise InputError(f"none of the first {len(self)} trials has a score; the last one: {why}")
