"""What proposes records: Optuna's samplers, made to suit a study that is killed, resumed or long."""

import copy
import functools
import heapq
import random
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.seeds import derive

BEST, LATEST = 25, 175
"""How many of the best and of the latest finished trials a proposal is made from. TPE takes at most
25 as the good ones; the time it needs grows with the others."""
KEPT = 2 / 3
"""The share of the stages in which a proposal is like the best trial so far."""
WHOLE = 4
"""One in so many proposals is drawn as a whole."""
RUNNING = 64
"""How many of the running trials are kept away from."""


class SeededSampler(BaseSampler):
    """Make a fresh sampler for each trial, seeded by the study's seed and the trial's number.

    What is proposed then depends on the trials before alone, not on how often the program was
    started since: a study that was killed and resumed proposes what it would have without.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._sampler = make(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler = self._make(derive(self._seed, trial.number, "sampler"))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        # A sampler of its own for each parameter: a trial that was killed while it was drawn has
        # some of its parameters, and the others must not depend on which.
        sampler = self._make(derive(self._seed, trial.number, param_name))
        return sampler.sample_independent(study, trial, param_name, param_distribution)


class TrickSampler(BaseSampler):
    """The tree-structured Parzen estimator (Bergstra et al., 2011), one joint density a trick.

    The hyperparameters of a trick, `optimizer.adam.lr` and `optimizer.adam.beta1`, are drawn together
    and with those of no other: just when the trick was drawn. Trials under way count as bad ones, so
    that several workers do not try the same.

    Of the many stages, a good trial needs a good variant in nearly all, which no few dozen trials tell
    apart. So three proposals in four change the best trial so far, at first the baseline: each stage
    keeps what it has there with a probability of two thirds, or is drawn anew.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._number = -1
        self._window: optuna.Study | None = None
        self._best: FrozenTrial | None = None
        self._drawn: dict[str, Any] = {}
        """What was drawn together with an earlier parameter of the same trial."""
        self._known: dict[str, BaseDistribution] = {}
        """The distribution of each parameter of those trials."""

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        del study, trial
        return {}  # which are needed is known only once the kinds are drawn

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
        if self._window is None or trial.number != self._number:
            self._number, self._drawn = trial.number, {}
            telling = _telling(study, trial)
            self._window = view(study, lambda: telling)
            self._best = _best_of(telling, study.direction) if trial.number % WHOLE else None
            self._known = {}
            for earlier in telling:
                self._known |= earlier.distributions
        if self._keeps(trial, param_name, param_distribution):
            assert self._best is not None
            return self._best.params[param_name]
        if param_name not in self._drawn:
            self._draw(self._window, trial, param_name, param_distribution)
        return self._drawn.pop(param_name)

    def _keeps(self, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> bool:
        """Tell whether a parameter stays as the best trial has it, with all others of its stage."""
        if self._best is None or self._best.distributions.get(name) != distribution:
            return False
        stage = name.partition(".")[0]
        return random.Random(derive(self._seed, trial.number, f"keep {stage}")).random() < KEPT

    def _draw(
        self, study: optuna.Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> None:
        """Draw a parameter, and those that are active whenever it is."""
        trick = name.rpartition(".")[0]
        together = {
            other: known
            for other, known in sorted({**self._known, name: distribution}.items())
            if other.rpartition(".")[0] == trick and not known.single()
        }
        seed = derive(self._seed, trial.number, trick)
        self._drawn |= TPESampler(seed=seed, multivariate=True).sample_relative(study, trial, together)
        if name not in self._drawn or not distribution._contains(
            distribution.to_internal_repr(self._drawn[name])
        ):
            alone = TPESampler(seed=derive(self._seed, trial.number, name))
            self._drawn[name] = alone.sample_independent(study, trial, name, distribution)


def view(study: optuna.Study, trials: Callable[[], Sequence[FrozenTrial]]) -> optuna.Study:
    """Return a study that shows some of the trials only: to look at each takes time.

    Args:
        study: the whole.
        trials: returns those to show, when they are first asked for.
    """
    shown = functools.cache(trials)

    def select(
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        del use_cache
        chosen = [t for t in shown() if states is None or t.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    some = copy.copy(study)
    some.__dict__.update(_get_trials=select, get_trials=select)
    return some


def _telling(study: optuna.Study, trial: FrozenTrial) -> list[FrozenTrial]:
    """Return what a proposal for a trial is made from; below 200 trials that is all."""
    trials = study.get_trials(deepcopy=False)
    ended = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if len(ended) > BEST + LATEST:
        older = [t for t in ended[:-LATEST] if t.state == TrialState.COMPLETE]
        best = heapq.nsmallest(BEST, older, key=_rank(study.direction))
        ended = sorted(best, key=lambda t: t.number) + ended[-LATEST:]
    running = [t for t in trials if t.state == TrialState.RUNNING and t.number != trial.number]
    return ended + [_bad(t) for t in running[-RUNNING:]]


def _best_of(trials: Sequence[FrozenTrial], direction: StudyDirection) -> FrozenTrial | None:
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    return min(complete, key=_rank(direction), default=None)


def _rank(direction: StudyDirection) -> Callable[[FrozenTrial], tuple[float, int]]:
    """Return what puts the best complete trial first, and the earlier of equals."""
    sign = -1 if direction == StudyDirection.MAXIMIZE else 1
    return lambda trial: (sign * (trial.value or 0.0), trial.number)


def _bad(trial: FrozenTrial) -> FrozenTrial:
    """Return a running trial as one that was pruned before its first report: the worst there is."""
    bad = copy.copy(trial)
    bad.state, bad.intermediate_values = TrialState.PRUNED, {}
    return bad


def _gp(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.GPSampler(seed=seed)


def _random(seed: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "tpe": TrickSampler,
    "random": partial(SeededSampler, _random),
    "gp": partial(SeededSampler, _gp),
}
