"""The sampler of tricks: small changes of the best trial, and random recipes."""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.search.sampling.proposal import Proposal
from lightning_tricks.seeds import derive

RANDOM_EVERY = 4
"""One trial in four is a random recipe."""


class TrickSampler(BaseSampler):
    """Improve the best trial: linear Thompson sampling for the choices, TPE for the numbers.

    A good trial needs a good variant in nearly every stage. A few dozen trials are too few to find
    those by trial and error, but a linear regression learns about all stages from every trial. So a
    proposal copies the best trial so far (at first the baseline) and changes at most three choices:
    those with the largest gain, by effects drawn from their posterior (`effects.py`).

    Where a choice stays, its numbers also stay in two of three stages. Otherwise the tree-structured
    Parzen estimator (Bergstra et al., 2011) draws them, with one joint density per trick:
    `optimizer.adam.lr` and `optimizer.adam.beta1` are drawn together, independently of other tricks.
    Running trials count as bad there, so that several workers do not try the same.

    Every fourth trial is a random recipe, as some are in PriorBand (Mallik et al., 2023). Without them,
    a search far from the best recipe soon tries the same few changes again.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._proposals: dict[tuple[str, int], Proposal] = {}
        """Proposals of the running trials, by study and number; several may be drawn at a time."""

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._proposals.pop((study.study_name, trial.number), None)  # of a trial that was put back

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        del state, values
        self._proposals.pop((study.study_name, trial.number), None)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        del study, trial
        return {}  # the needed parameters are known only after the kinds are drawn

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        del study, trial, search_space
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        if trial.number % RANDOM_EVERY == RANDOM_EVERY - 1:
            drawn = RandomSampler(seed=derive(self._seed, trial.number, param_name))
            return drawn.sample_independent(study, trial, param_name, param_distribution)
        new = Proposal(self._seed, study, trial)
        proposal = self._proposals.setdefault((study.study_name, trial.number), new)
        return proposal.draw(trial, param_name, param_distribution)
