"""A trial that is drawn in memory and then stored with one write.

A program that dies while it draws a trial leaves nothing behind in the storage. A database gets one
write per trial, not one per parameter.
"""

import copy
from collections.abc import Container, Mapping
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.search.passing_on import passing_on

DRAFT = -1
"""Id of the trial that is being drawn; ids in storages start at 0."""

_PassingOn: Any = passing_on(sorted(BaseStorage.__abstractmethods__))


class DraftStorage(_PassingOn):  # type: ignore[misc]  # made at run time
    """A storage with one additional trial, which it holds in memory.

    Args:
        storage: the storage of all other trials.
        study_id: id of the study that the trial is drawn for.
        number: the number that the trial will get.
    """

    def __init__(self, storage: BaseStorage, study_id: int, number: int) -> None:
        self._storage, self._study_id = storage, study_id
        self.trial = FrozenTrial(
            number=number,
            trial_id=DRAFT,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )

    def _pass_on(self, name: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        return getattr(self._storage, name)(*arguments, **options)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return copy.copy(self.trial) if trial_id == DRAFT else self._storage.get_trial(trial_id)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        trials = self._storage.get_all_trials(study_id, deepcopy, states)
        shown = study_id == self._study_id and (states is None or self.trial.state in states)
        return [*trials, self.trial] if shown else trials

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        if trial_id != DRAFT:
            self._storage.set_trial_param(trial_id, param_name, param_value_internal, distribution)
            return
        self.trial.params[param_name] = distribution.to_external_repr(param_value_internal)
        self.trial.distributions[param_name] = distribution

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id == DRAFT:
            self.trial.user_attrs[key] = value
        else:
            self._storage.set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id == DRAFT:
            self.trial.system_attrs[key] = value
        else:
            self._storage.set_trial_system_attr(trial_id, key, value)
