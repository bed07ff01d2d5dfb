"""Observers: objects that are notified while a study runs."""

from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from lightning_tricks.errors import user_code
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.trial.result import Epoch
from lightning_tricks.tricks.recipe import Tricks


class Observer:
    """Base class for objects that a running study notifies; override the methods you need.

    The methods run in the study's process and hold it up: put slow work into a thread.

    Example:
        class Loud(Observer):
            def ended(self, trial, outcome):
                print(trial.number, outcome.state, outcome.score)

        optimize(study, task, n_trials=40, observers=[Loud()])
    """

    def began(self, number: int, tricks: Tricks, seed: int) -> None:
        """Called when a trial begins, or resumes in a new run of the study."""

    def epoch(self, number: int, epoch: Epoch) -> None:
        """Called once for each epoch of a trial."""

    def ended(self, trial: FrozenTrial, outcome: Outcome) -> None:
        """Called when a trial ended, after Optuna has stored its outcome."""

    def paused(self, number: int, outcome: Outcome) -> None:
        """Called when a trial pauses; `began` is called when it goes on."""

    def put_back(self, number: int) -> None:
        """Called when a trial goes back into the queue, for a later run of the study."""

    def concluded(self, study: optuna.Study) -> None:
        """Called at the end of a run, after the verdict; the study holds the results."""


class Observers(Observer):
    """Several observers as one.

    Args:
        own: the package's observers.
        users: the user's observers; their errors are shown in one line.
    """

    def __init__(self, own: Sequence[Observer], users: Sequence[Observer] = ()) -> None:
        self.own, self.users = own, users

    def _tell(self, tell: Callable[[Observer], Any]) -> None:
        for observer in self.own:
            tell(observer)
        for observer in self.users:
            with user_code(f"the observer {type(observer).__name__} fails"):
                tell(observer)

    def began(self, number: int, tricks: Tricks, seed: int) -> None:
        self._tell(lambda observer: observer.began(number, tricks, seed))

    def epoch(self, number: int, epoch: Epoch) -> None:
        self._tell(lambda observer: observer.epoch(number, epoch))

    def ended(self, trial: FrozenTrial, outcome: Outcome) -> None:
        self._tell(lambda observer: observer.ended(trial, outcome))

    def paused(self, number: int, outcome: Outcome) -> None:
        self._tell(lambda observer: observer.paused(number, outcome))

    def put_back(self, number: int) -> None:
        self._tell(lambda observer: observer.put_back(number))

    def concluded(self, study: optuna.Study) -> None:
        self._tell(lambda observer: observer.concluded(study))
