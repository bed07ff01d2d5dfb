"""What Optuna has no public call for: the only file that uses names that it may change.

Each is there since Optuna 3 at least; `tests/test_internals.py` says which one an upgrade took away.
"""

import copy
from collections.abc import Callable, Container, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.search.draft import DRAFT, DraftStorage

T = TypeVar("T")


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


def ask(
    study: optuna.Study,
    sampler: BaseSampler,
    suggest: Callable[[optuna.Trial], T],
    user_attrs: Mapping[str, Any],
) -> tuple[optuna.Trial, T]:
    """Ask for a trial: one that waits, or a new one, of which nobody knows until all of it is drawn.

    Args:
        study: that the trial is of.
        sampler: instead of the study's.
        suggest: draws what is wanted from a trial.
        user_attrs: of a new one.

    Returns:
        The trial, and what was drawn from it.
    """
    shown = copy.copy(study)
    shown.sampler = sampler
    shown.stop = study.stop  # type: ignore[method-assign]  # samplers call it, of the study they are shown
    trials = study.get_trials(deepcopy=False)
    if any(trial.state == TrialState.WAITING for trial in trials):
        trial = shown.ask()
        try:
            drawn = suggest(trial)
        except BaseException:
            requeue(study, trial)
            raise
        return _of(study, trial, trial._trial_id), drawn
    shown._storage = storage = DraftStorage(study._storage, study._study_id, len(trials))
    storage.trial.user_attrs.update(user_attrs)
    trial = optuna.Trial(shown, DRAFT)
    drawn = suggest(trial)
    return _of(study, trial, study._storage.create_new_trial(study._study_id, storage.trial)), drawn


def _of(study: optuna.Study, trial: optuna.Trial, trial_id: int) -> optuna.Trial:
    """Return a trial of what a study was shown as one of the study itself."""
    trial.study, trial.storage, trial._trial_id = study, study._storage, trial_id
    trial._cached_frozen_trial = study._storage.get_trial(trial_id)
    return trial


def id_of(trial: FrozenTrial) -> int:
    """Return the id by which a storage knows a trial."""
    return trial._trial_id


def live(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """Return a trial of a study as one that can be written to."""
    return optuna.Trial(study, trial._trial_id)


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
