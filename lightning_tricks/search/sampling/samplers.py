"""Samplers, which propose recipes: this package's own, and Optuna's, made safe for resumed studies."""

import copy
import heapq
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, TypeGuard

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.scores import rank_of
from lightning_tricks.search.optuna_internals import contains, trials_of, view
from lightning_tricks.search.order import mode_of
from lightning_tricks.search.outcomes import best_of
from lightning_tricks.search.promotion import is_paused
from lightning_tricks.search.sampling.effects import SHRINK, draw_effects
from lightning_tricks.search.sampling.features import Option
from lightning_tricks.search.sampling.given import given_recipe
from lightning_tricks.search.sampling.prior import prior_of
from lightning_tricks.seeds import derive

BEST, LATEST = 25, 175
"""Number of best and of latest finished trials that a proposal uses. TPE counts at most 25 trials as
good; its time grows with the number of the others."""
CHANGED = 3
"""Maximum number of choices in which a proposal differs from the best trial so far."""
KEPT = 2 / 3
"""Share of the stages with unchanged choices that keep their numbers, too."""
MOST_DOUBLINGS = 8
"""Maximum number of doublings of the doubt. Each repeated proposal in a row doubles it."""
RUNNING = 64
"""Maximum number of running trials that a proposal takes into account."""


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
        self._proposals: dict[tuple[str, int], _Proposal] = {}
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
        new = _Proposal(self._seed, study, trial)
        proposal = self._proposals.setdefault((study.study_name, trial.number), new)
        return proposal.draw(trial, param_name, param_distribution)


class _Proposal:
    """The sampler's proposal for one trial, parameter by parameter.

    Args:
        seed: the study's seed.
        study: the study at the time of the first parameter.
        trial: the trial to propose for.
    """

    def __init__(self, seed: int, study: optuna.Study, trial: FrozenTrial) -> None:
        self._seed, self._study, self._trial = seed, study, trial
        self._drawn: dict[str, Any] = {}
        """Values that were drawn together with an earlier parameter."""

    @cached_property
    def _trials(self) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """The ended and the running trials, read once.

        `get_trials` would not do: under Hyperband it shows one bracket only, and which one depends on
        whether the pruner has seen a report since the program began.
        """
        trials = [t for t in trials_of(self._study) if given_recipe(t) is None]
        return _ended(trials, self._study.direction), _running(trials, self._trial.number)

    @cached_property
    def _telling(self) -> list[FrozenTrial]:
        """The trials that TPE sees."""
        return [trial for trials in self._trials for trial in trials]

    @cached_property
    def _known(self) -> dict[str, BaseDistribution]:
        """The distributions of those trials' parameters, by name."""
        return {name: known for t in self._telling for name, known in t.distributions.items()}

    @cached_property
    def _best(self) -> Mapping[str, tuple[BaseDistribution, Any]]:
        """The best trial's distributions and values, by name; empty if no trial is complete."""
        best = best_of(self._telling, mode_of(self._study.direction))
        return {n: (known, best.params[n]) for n, known in best.distributions.items()} if best else {}

    @cached_property
    def _effects(self) -> Mapping[Option, float]:
        ended, running = self._trials
        doubt = SHRINK * 2 ** min(_repeats(ended), MOST_DOUBLINGS)
        seed, prior = self._derive("effects"), prior_of(self._study)
        return draw_effects(ended, running, self._study.direction, seed, doubt, prior)

    @cached_property
    def _changed(self) -> list[str]:
        """The best trial's choices for which another option has the largest gain."""
        gains = {
            name: self._effect(name, self._favorite(name, known)) - self._effect(name, option)
            for name, (known, option) in sorted(self._best.items())
            if _is_choice(known)
        }
        return heapq.nlargest(CHANGED, gains, key=gains.__getitem__)

    @cached_property
    def _redrawn(self) -> set[str]:
        """The stages with newly drawn numbers: at least one, or the proposal might repeat a trial."""
        numbers = [
            n for n, (known, _) in self._best.items() if not (_is_choice(known) or known.single())
        ]
        stages = sorted({_stage(name) for name in numbers})
        luck = {stage: random.Random(self._derive(f"keep {stage}")).random() for stage in stages}
        bound = min(KEPT, max(luck.values(), default=KEPT))
        return {stage for stage in stages if luck[stage] >= bound}

    def draw(self, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        """Return a parameter's value; `trial` has the parameters drawn so far."""
        known, value = self._best.get(name, (None, None))
        if known == distribution and not self._changes(name, known):
            return value
        if self._best and name in self._known and _is_choice(distribution):
            return self._favorite(name, distribution)
        if name not in self._drawn:
            self._draw(trial, name, distribution)
        return self._drawn.pop(name)

    def _changes(self, name: str, known: BaseDistribution) -> bool:
        """Return whether the proposal changes this parameter of the best trial."""
        return name in self._changed if _is_choice(known) else _stage(name) in self._redrawn

    def _favorite(self, name: str, choice: CategoricalDistribution) -> Any:
        """Return the option with the largest drawn effect."""
        return max(choice.choices, key=lambda option: self._effect(name, option))

    def _effect(self, name: str, option: Any) -> float:
        return self._effects.get((name, option), 0.0)

    def _draw(self, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> None:
        """Draw a parameter together with the other parameters of its trick."""
        trick = name.rpartition(".")[0]
        together = {
            other: known
            for other, known in sorted({**self._known, name: distribution}.items())
            if other.rpartition(".")[0] == trick and not known.single()
        }
        study = view(self._study, lambda: self._telling)
        sampler = TPESampler(seed=self._derive(trick), multivariate=True)
        self._drawn |= sampler.sample_relative(study, trial, together)
        if name not in self._drawn or not contains(distribution, self._drawn[name]):
            alone = TPESampler(seed=self._derive(name))
            self._drawn[name] = alone.sample_independent(study, trial, name, distribution)

    def _derive(self, purpose: str) -> int:
        return derive(self._seed, self._trial.number, purpose)


def _ended(trials: Sequence[FrozenTrial], direction: StudyDirection) -> list[FrozenTrial]:
    """Return the finished and paused trials that a proposal uses: all of them up to 200.

    The trials of all Hyperband brackets count, as in Optuna's samplers: their scores are comparable.
    """
    known = [_as_pruned(t) if is_paused(t) else t for t in trials]
    ended = [t for t in known if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if len(ended) <= BEST + LATEST:
        return ended
    older = [t for t in ended[:-LATEST] if t.state == TrialState.COMPLETE]
    best = heapq.nsmallest(BEST, older, key=partial(rank_of, mode=mode_of(direction)))
    return sorted(best, key=lambda t: t.number) + ended[-LATEST:]


def _repeats(ended: Sequence[FrozenTrial]) -> int:
    """Return how many of the latest trials in a row had the parameters of an earlier one.

    In a small space, the sampler repeats proposals once it knows the effects well.
    """
    count = 0
    for at in range(len(ended) - 1, 0, -1):
        if all(earlier.params != ended[at].params for earlier in ended[:at]):
            break
        count += 1
    return count


def _running(trials: Sequence[FrozenTrial], but: int) -> list[FrozenTrial]:
    """Return the latest running trials as bad ones, except the trial with number `but`."""
    running = [t for t in trials if t.state == TrialState.RUNNING and t.number != but]
    return [_bad(t) for t in running[-RUNNING:]]


def _is_choice(distribution: BaseDistribution | None) -> TypeGuard[CategoricalDistribution]:
    return isinstance(distribution, CategoricalDistribution)


def _stage(name: str) -> str:
    return name.partition(".")[0]


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial that did not end as one that was pruned at its last report.

    Its parameters are copied, because another thread may still add some to the original.
    """
    pruned = copy.copy(trial)
    pruned.state = TrialState.PRUNED
    pruned.params, pruned.distributions = dict(trial.params), dict(trial.distributions)
    return pruned


def _bad(trial: FrozenTrial) -> FrozenTrial:
    """Return a running trial as one that was pruned before its first report: the worst possible."""
    bad = _as_pruned(trial)
    bad.intermediate_values = {}
    return bad


def _gp(seed: int) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=seed)


def _random(seed: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(seed=seed)


SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "tricks": TrickSampler,
    "tpe": partial(SeededSampler, _tpe),
    "random": partial(SeededSampler, _random),
    "gp": partial(SeededSampler, _gp),
}
