"""Helpers that need Optuna's private names; no other file uses them.

Optuna has had each name since version 3 at least. If an upgrade removes one, `tests/test_internals.py`
says which.
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

from lightning_tricks.errors import InputError, one_line
from lightning_tricks.search.draft import DRAFT, DraftStorage

T = TypeVar("T")


def storage_of(study: optuna.Study) -> BaseStorage:
    """Return the storage of a study."""
    return study._storage


def user_attrs_of(study: optuna.Study) -> Mapping[str, Any]:
    """Return a study's attributes without the deep copy that `user_attrs` makes."""
    return study._storage.get_study_user_attrs(study._study_id)


def trials_of(study: optuna.Study) -> list[FrozenTrial]:
    """Return all trials, even if the pruner shows only those of one bracket."""
    return study._get_trials(deepcopy=False)


def requeue(study: optuna.Study, trial: FrozenTrial | optuna.Trial) -> None:
    """Put a running trial back in the queue, with its number and its parameters.

    Optuna's storages accept this state change. The next `ask` returns the trial again.
    """
    study._storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)


def take_up(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """Return a waiting trial as a running one."""
    study._storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING)
    return live(study, trial)


def ask(
    study: optuna.Study,
    sampler: BaseSampler,
    suggest: Callable[[optuna.Trial], T],
    user_attrs: Mapping[str, Any],
    waits: Callable[[FrozenTrial], bool] = lambda trial: trial.state == TrialState.WAITING,
) -> tuple[optuna.Trial, T]:
    """Return a waiting trial or a new one; a new one is stored only once it is fully drawn.

    Args:
        study: the trial's study.
        sampler: sampler to use instead of the study's.
        suggest: draws the values from a trial.
        user_attrs: attributes of a new trial.
        waits: returns whether a trial waits to be taken up.

    Returns:
        The trial, and what `suggest` returned.
    """
    shown = copy.copy(study)
    shown.sampler = sampler
    shown.stop = study.stop  # type: ignore[method-assign]  # samplers call it on the study they get
    trials = study.get_trials(deepcopy=False)
    if (waiting := next((trial for trial in trials if waits(trial)), None)) is not None:
        trial = take_up(shown, waiting)
        try:
            drawn = suggest(trial)
        except BaseException as error:
            if isinstance(error, (ValueError, InputError)):
                study.tell(trial.number, state=TrialState.FAIL)
                raise InputError(
                    f"the enqueued trial {trial.number} does not fit the space: {one_line(error)}; it "
                    "is marked as failed, and the study continues without it"
                ) from None
            requeue(study, trial)
            raise
        return _of(study, trial, trial._trial_id), drawn
    shown._storage = storage = DraftStorage(study._storage, study._study_id, len(trials))
    storage.trial.user_attrs.update(user_attrs)
    trial = optuna.Trial(shown, DRAFT)
    drawn = suggest(trial)
    return _of(study, trial, study._storage.create_new_trial(study._study_id, storage.trial)), drawn


def _of(study: optuna.Study, trial: optuna.Trial, trial_id: int) -> optuna.Trial:
    """Move a trial from the temporary copy of a study to the study itself."""
    trial.study, trial.storage, trial._trial_id = study, study._storage, trial_id
    trial._cached_frozen_trial = study._storage.get_trial(trial_id)
    return trial


def id_of(trial: FrozenTrial) -> int:
    """Return a trial's id in its storage."""
    return trial._trial_id


def live(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """Return a writable version of a study's trial."""
    return optuna.Trial(study, trial._trial_id)


def last_reported(study: optuna.Study, trial: optuna.Trial) -> int:
    """Return the last step reported to a running trial; -1 if there is none."""
    return max(study._storage.get_trial(trial._trial_id).intermediate_values, default=-1)


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Return whether a distribution contains a value."""
    return distribution._contains(distribution.to_internal_repr(value))


def view(study: optuna.Study, trials: Callable[[], Sequence[FrozenTrial]]) -> optuna.Study:
    """Return a study that shows only some trials, which saves time.

    Args:
        study: the whole study, or a pruner's view of it: Hyperband's brackets cannot be copied.
        trials: returns the trials to show; called on first use.
    """
    return cast(optuna.Study, _View(study, trials))


class _View:
    """A study that shows only some trials; everything else comes from the whole study."""

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
