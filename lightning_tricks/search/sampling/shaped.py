"""A sampler that draws trials with some parameters fixed."""

import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, PartialFixedSampler


class PartialFixed(PartialFixedSampler):
    """Optuna's sampler, without the warning that its arguments may change."""

    def __init__(self, fixed: Mapping[str, Any], sampler: BaseSampler) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(dict(fixed), sampler)
        self._own = sampler

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        self._own.before_trial(study, trial)
