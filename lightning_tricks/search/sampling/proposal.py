"""A proposal for one trial: the best trial so far with a few changes."""

import heapq
import random
from collections.abc import Mapping
from functools import cached_property
from typing import Any, TypeGuard

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial

from lightning_tricks.search.optuna_internals import contains, trials_of, view
from lightning_tricks.search.order import mode_of
from lightning_tricks.search.outcomes import best_of
from lightning_tricks.search.sampling.effects import SHRINK, draw_effects
from lightning_tricks.search.sampling.evidence import ended_of, repeats_at_the_end, running_of
from lightning_tricks.search.sampling.features import Option
from lightning_tricks.search.sampling.given import given_recipe
from lightning_tricks.search.sampling.prior import prior_of
from lightning_tricks.seeds import derive

CHANGED = 3
"""Maximum number of choices in which a proposal differs from the best trial so far."""
KEPT = 2 / 3
"""Share of the stages with unchanged choices that keep their numbers, too."""
MOST_DOUBLINGS = 8
"""Maximum number of doublings of the doubt. Each repeated proposal in a row doubles it."""


class Proposal:
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
        return ended_of(trials, self._study.direction), running_of(trials, self._trial.number)

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
        doubt = SHRINK * 2 ** min(repeats_at_the_end(ended), MOST_DOUBLINGS)
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


def _is_choice(distribution: BaseDistribution | None) -> TypeGuard[CategoricalDistribution]:
    return isinstance(distribution, CategoricalDistribution)


def _stage(name: str) -> str:
    return name.partition(".")[0]
