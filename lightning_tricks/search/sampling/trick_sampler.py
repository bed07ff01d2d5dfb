"""The sampler of tricks: small changes of the best trial."""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.search.sampling.proposal import Proposal


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
        new = Proposal(self._seed, study, trial)
        proposal = self._proposals.setdefault((study.study_name, trial.number), new)
        return proposal.draw(trial, param_name, param_distribution)
