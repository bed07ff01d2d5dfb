"""What Optuna has no public call for: the only file that uses names that it may change.

Each is there since Optuna 3 at least; `tests/test_internals.py` says which one an upgrade took away.
"""

import copy
from collections.abc import Callable, Container, Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState


def storage_of(study: optuna.Study) -> BaseStorage:
    """Return the storage of a study."""
    return study._storage


def user_attrs_of(study: optuna.Study) -> Mapping[str, Any]:
    """Return what a study holds, without the copy that `user_attrs` makes of all of it."""
    return study._storage.get_study_user_attrs(study._study_id)


def trials_of(study: optuna.Study) -> list[FrozenTrial]:
    """Return all trials, also where a pruner shows those of one bracket only."""
    return study._get_trials(deepcopy=False)


def requeue(study: optuna.Study, trial: FrozenTrial | optuna.Trial) -> None:
    """Put a running trial back in the queue, with its number and its parameters.

    Optuna's storages take the state, and hand the trial out again at the next `ask`.
    """
    study._storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)


def last_reported(study: optuna.Study, trial: optuna.Trial) -> int:
    """Return the last step that was reported to a running trial; -1 if none was."""
    return max(study._storage.get_trial(trial._trial_id).intermediate_values, default=-1)


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Tell whether a distribution has a value."""
    return distribution._contains(distribution.to_internal_repr(value))


def view(study: optuna.Study, trials: Callable[[], Sequence[FrozenTrial]]) -> optuna.Study:
    """Return a study that shows some of the trials only: to look at each takes time.

    Args:
        study: the whole, or what a pruner shows of it: Hyperband's brackets cannot be copied.
        trials: returns those to show, when they are first asked for.
    """
    return cast(optuna.Study, _View(study, trials))


class _View:
    """A study that shows some of the trials only; all else it asks the whole one for."""

    def __init__(self, study: optuna.Study, trials: Callable[[], Sequence[FrozenTrial]]) -> None:
        self._whole, self._trials = study, trials

    @cached_property
    def _shown(self) -> Sequence[FrozenTrial]:
        return self._trials()

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        del use_cache
        chosen = [t for t in self._shown if states is None or t.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    get_trials = _get_trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)
