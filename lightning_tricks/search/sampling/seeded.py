"""Samplers of Optuna that propose the same for a study that was killed and resumed."""

from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from lightning_tricks.seeds import derive


class SeededSampler(BaseSampler):
    """Make a new sampler for each call, seeded by the study's seed and the trial's number.

    A proposal then depends only on the earlier trials. A study that was killed and resumed gets the
    same proposals as one that was not. No state is kept between calls, so several threads may ask at
    the same time.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed

    def _fresh(self, trial: FrozenTrial, purpose: str = "sampler") -> BaseSampler:
        return self._make(derive(self._seed, trial.number, purpose))

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._fresh(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        return self._fresh(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        # Each parameter gets its own sampler: a trial that was killed while it was drawn already has
        # some parameters, and the others must not depend on which.
        sampler = self._fresh(trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)
