"""Draws trials some of whose parameters are given."""

import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, PartialFixedSampler


class PartialFixed(PartialFixedSampler):
    """Optuna's, without the warning that its arguments may change one day."""

    def __init__(self, fixed: Mapping[str, Any], sampler: BaseSampler) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(dict(fixed), sampler)
        self._own = sampler

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        self._own.before_trial(study, trial)
