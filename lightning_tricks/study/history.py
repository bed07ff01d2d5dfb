"""The trials of a study that ended, and the best of them."""

from collections.abc import Iterator, Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.errors import InputError
from lightning_tricks.scores import Mode
from lightning_tricks.search.observer import Observer
from lightning_tricks.search.outcomes import Outcome, best_of, is_repeat, key
from lightning_tricks.tricks.recipe import Tricks


class History(Observer):
    """The finished trials by number: a storage takes long to list them.

    Args:
        mode: whether less or more is better.
    """

    def __init__(self, mode: Mode) -> None:
        self.best: FrozenTrial | None = None
        self.counted = 0
        """How many of them count: those that do not repeat an earlier recipe."""
        self.repeats_in_a_row = 0
        """How many of the last ones did nothing but that."""
        self._mode = mode
        self._trials: dict[int, FrozenTrial] = {}
        self._scored = False
        """Whether any trial has a score."""
        self._first: dict[str, int] = {}
        """The number of the first trial that did not fail, by the key of its recipe."""

    def __len__(self) -> int:
        return len(self._trials)

    def __iter__(self) -> Iterator[FrozenTrial]:
        return iter(self._trials.values())

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
        """Return the first trial of a recipe, with its outcome; None if it was not tried yet."""
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
        """Give up where every trial failed, or none has a score: the mistake is not in the tricks.

        Args:
            least: the number of trials from which on that is said.

        Raises:
            InputError: if that is so.
        """
        if len(self) < least or (self._first and self._scored):
            return
        outcome = Outcome.read(list(self)[-1])
        why = outcome.reason if outcome else "no reason"
        if all(trial.state == TrialState.FAIL for trial in self):
            raise InputError(f"the first {len(self)} trials all failed, the last one with: {why}")
        if not self._scored:
            raise InputError(f"none of the first {len(self)} trials has a score, the last since {why}")
