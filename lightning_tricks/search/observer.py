"""Who hears of a study while it runs."""

from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from lightning_tricks.errors import user_code
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.trial.result import Epoch
from lightning_tricks.tricks.recipe import Tricks


class Observer:
    """Hears what happens in a study, in the process that runs it; each method may be left out.

    What it does takes the study's time: something slow belongs into a thread of its own.

    Example:
        class Loud(Observer):
            def ended(self, trial, outcome):
                print(trial.number, outcome.state, outcome.score)

        optimize(study, task, n_trials=40, observers=[Loud()])
    """

    def began(self, number: int, tricks: Tricks, seed: int) -> None:
        """Hear that a trial begins, or goes on in a new run of the study."""

    def epoch(self, number: int, epoch: Epoch) -> None:
        """Hear of an epoch of a trial, of each once."""

    def ended(self, trial: FrozenTrial, outcome: Outcome) -> None:
        """Hear how a trial ended, once Optuna holds it."""

    def put_back(self, number: int) -> None:
        """Hear that a trial waits for a later run of the study."""

    def concluded(self, study: optuna.Study) -> None:
        """Hear that a run of the study is over, its verdict included; the study holds what was found."""


class Observers(Observer):
    """Several as one.

    Args:
        own: ours.
        users: the user's, whose errors are told in one line.
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

    def put_back(self, number: int) -> None:
        self._tell(lambda observer: observer.put_back(number))

    def concluded(self, study: optuna.Study) -> None:
        self._tell(lambda observer: observer.concluded(study))
