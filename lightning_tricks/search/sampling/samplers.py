"""What proposes recipes: Optuna's samplers, made to suit a study that is killed, resumed or long."""

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

from lightning_tricks.scores import Rank, rank_of
from lightning_tricks.search.optuna_internals import contains, trials_of, view
from lightning_tricks.search.sampling.effects import SHRINK, Option, draw_effects
from lightning_tricks.search.sampling.given import given_recipe
from lightning_tricks.seeds import derive

BEST, LATEST = 25, 175
"""How many of the best and of the latest finished trials a proposal is made from. TPE takes at most
25 as the good ones; the time it needs grows with the others."""
CHANGED = 3
"""In so many choices at most a proposal differs from the best trial so far."""
KEPT = 2 / 3
"""The share of the stages whose numbers stay, where their choices do."""
MOST_DOUBLINGS = 8
"""Each proposal in a row that was made before doubles the doubt, so many times at most."""
RUNNING = 64
"""How many of the running trials are kept away from."""


class SeededSampler(BaseSampler):
    """Make a fresh sampler for each question, seeded by the study's seed and the trial's number.

    What is proposed then depends on the trials before alone, not on how often the program was
    started since: a study that was killed and resumed proposes what it would have without. Nor is
    anything kept from one question to the next, so several threads may ask at the same time.
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
        # A sampler of its own for each parameter: a trial that was killed while it was drawn has
        # some of its parameters, and the others must not depend on which.
        sampler = self._fresh(trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)


class TrickSampler(BaseSampler):
    """Change what is likely wrong with the best trial: linear Thompson sampling beside TPE.

    Of the many stages, a good trial needs a good variant in nearly all, which no few dozen trials tell
    apart. But a linear regression learns something of all stages from every trial. So a proposal has the
    choices of the best trial so far, at first the baseline, but for three at most: those that promise
    most, by effects that are drawn from what may be believed of them (`effects.py`).

    Where a choice stays its numbers do too, in two stages of three; else they are drawn by the
    tree-structured Parzen estimator (Bergstra et al., 2011), one joint density a trick:
    `optimizer.adam.lr` and `optimizer.adam.beta1` are drawn together and with those of no other. There
    trials under way count as bad ones, so that several workers do not try the same.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._proposals: dict[tuple[str, int], _Proposal] = {}
        """Of the trials under way, by study and number: several may be drawn at the same time."""

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._proposals.pop((study.study_name, trial.number), None)  # it was put back, and begins anew

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
        new = _Proposal(self._seed, study, trial)
        proposal = self._proposals.setdefault((study.study_name, trial.number), new)
        return proposal.draw(trial, param_name, param_distribution)


class _Proposal:
    """What the sampler proposes for one trial, parameter by parameter.

    Args:
        seed: of the study.
        study: as it is when the first parameter is drawn.
        trial: the one to propose for.
    """

    def __init__(self, seed: int, study: optuna.Study, trial: FrozenTrial) -> None:
        self._seed, self._study, self._trial = seed, study, trial
        self._drawn: dict[str, Any] = {}
        """What was drawn together with an earlier parameter."""

    @cached_property
    def _trials(self) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """What ended, and what runs, at one moment.

        Under Hyperband `get_trials` shows those of one bracket, and of which depends on whether the
        pruner has seen a report since the program began.
        """
        trials = [t for t in trials_of(self._study) if given_recipe(t) is None]
        return _ended(trials, self._study.direction), _running(trials, self._trial.number)

    @cached_property
    def _telling(self) -> list[FrozenTrial]:
        """The trials that TPE is shown."""
        return [trial for trials in self._trials for trial in trials]

    @cached_property
    def _known(self) -> dict[str, BaseDistribution]:
        """The distribution of each parameter of those trials."""
        return {name: known for t in self._telling for name, known in t.distributions.items()}

    @cached_property
    def _best(self) -> Mapping[str, tuple[BaseDistribution, Any]]:
        """The parameters of the trial to change; none where no trial is complete."""
        best = _best_of(self._telling, self._study.direction)
        return {n: (known, best.params[n]) for n, known in best.distributions.items()} if best else {}

    @cached_property
    def _effects(self) -> Mapping[Option, float]:
        ended, running = self._trials
        doubt = SHRINK * 2 ** min(_repeats(ended), MOST_DOUBLINGS)
        return draw_effects(ended, running, self._study.direction, self._derive("effects"), doubt)

    @cached_property
    def _changed(self) -> list[str]:
        """The choices of the best trial in which another option promises most."""
        gains = {
            name: self._effect(name, self._favorite(name, known)) - self._effect(name, option)
            for name, (known, option) in sorted(self._best.items())
            if _is_choice(known)
        }
        return heapq.nlargest(CHANGED, gains, key=gains.__getitem__)

    @cached_property
    def _redrawn(self) -> set[str]:
        """The stages whose numbers are drawn anew: one at least, or nothing new might be proposed."""
        numbers = [
            n for n, (known, _) in self._best.items() if not (_is_choice(known) or known.single())
        ]
        stages = sorted({_stage(name) for name in numbers})
        luck = {stage: random.Random(self._derive(f"keep {stage}")).random() for stage in stages}
        bound = min(KEPT, max(luck.values(), default=KEPT))
        return {stage for stage in stages if luck[stage] >= bound}

    def draw(self, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        """Return the value of a parameter, of the trial as it is by now."""
        known, value = self._best.get(name, (None, None))
        if known == distribution and not self._changes(name, known):
            return value
        if self._best and name in self._known and _is_choice(distribution):
            return self._favorite(name, distribution)
        if name not in self._drawn:
            self._draw(trial, name, distribution)
        return self._drawn.pop(name)

    def _changes(self, name: str, known: BaseDistribution) -> bool:
        """Tell whether a parameter of the best trial is to be another."""
        return name in self._changed if _is_choice(known) else _stage(name) in self._redrawn

    def _favorite(self, name: str, choice: CategoricalDistribution) -> Any:
        """Return the option that adds most, by the effects that were drawn."""
        return max(choice.choices, key=lambda option: self._effect(name, option))

    def _effect(self, name: str, option: Any) -> float:
        return self._effects.get((name, option), 0.0)

    def _draw(self, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> None:
        """Draw a parameter, and those that are active whenever it is."""
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
    """Return the finished trials that a proposal is made from; below 200 that is all.

    Scores compare across Hyperband's brackets, so those of all of them count, as they do for Optuna's
    samplers.
    """
    ended = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if len(ended) <= BEST + LATEST:
        return ended
    older = [t for t in ended[:-LATEST] if t.state == TrialState.COMPLETE]
    best = heapq.nsmallest(BEST, older, key=_rank(direction))
    return sorted(best, key=lambda t: t.number) + ended[-LATEST:]


def _repeats(ended: Sequence[FrozenTrial]) -> int:
    """Return how many of the latest trials in a row had the parameters of an earlier one.

    In a space of few recipes the same is proposed again once the effects are known well.
    """
    count = 0
    for at in range(len(ended) - 1, 0, -1):
        if all(earlier.params != ended[at].params for earlier in ended[:at]):
            break
        count += 1
    return count


def _running(trials: Sequence[FrozenTrial], but: int) -> list[FrozenTrial]:
    """Return the latest of the trials under way, but for the one of a number, each as a bad one."""
    running = [t for t in trials if t.state == TrialState.RUNNING and t.number != but]
    return [_bad(t) for t in running[-RUNNING:]]


def _is_choice(distribution: BaseDistribution | None) -> TypeGuard[CategoricalDistribution]:
    return isinstance(distribution, CategoricalDistribution)


def _stage(name: str) -> str:
    return name.partition(".")[0]


def _best_of(trials: Sequence[FrozenTrial], direction: StudyDirection) -> FrozenTrial | None:
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    return min(complete, key=_rank(direction), default=None)


def _rank(direction: StudyDirection) -> Callable[[FrozenTrial], Rank]:
    """Return what puts the best complete trial first."""
    return partial(rank_of, mode="max" if direction == StudyDirection.MAXIMIZE else "min")


def _bad(trial: FrozenTrial) -> FrozenTrial:
    """Return a running trial as one that was pruned before its first report: the worst there is.

    It has the parameters that it has now: whoever draws it adds further ones to the same mappings.
    """
    bad = copy.copy(trial)
    bad.state, bad.intermediate_values = TrialState.PRUNED, {}
    bad.params, bad.distributions = dict(trial.params), dict(trial.distributions)
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
