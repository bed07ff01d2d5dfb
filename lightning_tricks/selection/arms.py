"""The arms of an ablation: recipes that differ by a trick, and the learning rates to try for each."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from lightning_tricks.space.domains import Domain, Float
from lightning_tricks.space.space import Space
from lightning_tricks.tricks.recipe import Tricks, describe

RATES = 6
"""Number of learning rates tried for each arm, once each."""
AGAIN = 2
"""Number of best rates tried again: close to divergence, a rate can be lucky once."""
STRONGEST = 3
"""Number of strongest tricks whose pairs are tried."""

Rate = TypeVar("Rate")
Family = Literal["leave one out", "add one in", "pair"]


@dataclass(frozen=True)
class Arm:
    """A recipe to compare with its reference recipe."""

    family: Family
    stages: tuple[str, ...]
    """Stages in which the two differ: one, or two for a pair."""
    trick: str
    """Description of the trick that only one of the two has."""
    recipe: Tricks

    @property
    def name(self) -> str:
        """Name, unique among the arms of a champion."""
        return (
            f"{'plain with' if self.family == 'add one in' else 'without'} {' and '.join(self.stages)}"
        )


def arms(space: Space[Any], champion: Tricks, plain: Tricks) -> list[Arm]:
    """Return the champion without each of its tricks, and plain with each of them.

    A recipe that equals one of the two except for the learning rate is no arm: each arm has its own.

    Args:
        space: the search space, which holds both.
        champion: the champion's recipe.
        plain: the recipe without tricks.
    """
    found = []
    for stage in champion.differences(plain):
        trick = f"{stage} {describe(getattr(champion, stage))}"
        without, alone = _with(space, champion, plain, [stage]), _with(space, plain, champion, [stage])
        found.append(Arm("leave one out", (stage,), trick, without))
        found.append(Arm("add one in", (stage,), trick, alone))
    references = [rates(space, recipe)[0] for recipe in (champion, plain)]
    return [arm for arm in found if rates(space, arm.recipe)[0] not in references]


def trainings(space: Space[Any], champion: Tricks, plain: Tricks, seeds: int) -> int:
    """Return the number of trainings of a champion's ablation.

    Args:
        space: the search space.
        champion: the champion's recipe.
        plain: the recipe without tricks.
        seeds: number of seeds of the comparison.
    """
    compared = 2 + len(arms(space, champion, plain)) + math.comb(STRONGEST, 2)
    return compared * (RATES + AGAIN + seeds)


def pairs(space: Space[Any], champion: Tricks, plain: Tricks, worth: Mapping[str, float]) -> list[Arm]:
    """Return the champion without two of its strongest tricks at once.

    Args:
        space: the search space.
        champion: the champion's recipe.
        plain: the recipe without tricks.
        worth: a rough worth of each of the champion's tricks, by stage.
    """
    strongest = sorted(worth, key=lambda stage: -abs(worth[stage]))[:STRONGEST]
    return [
        Arm("pair", two, " × ".join(two), _with(space, champion, plain, two))
        for two in itertools.combinations(strongest, 2)
    ]


def _with(space: Space[Any], recipe: Tricks, other: Tricks, stages: Sequence[str]) -> Tricks:
    """Return a recipe with some stages taken from another."""
    taken = {stage: other.model_dump()[stage] for stage in stages}
    changed: Tricks = space.nearest(type(recipe).parse({**recipe.model_dump(), **taken}))
    return changed


def rates(space: Space[Any], recipe: Tricks, count: int = RATES) -> list[Tricks]:
    """Return a recipe at several learning rates, spread evenly over the search range.

    The spread is even on a log scale if the search's is. If the rate is pinned, or one of a few choices,
    these are returned.
    """
    path = f"optimizer.{getattr(recipe.optimizer, 'kind', '')}.lr"
    if path not in space.domains:
        return [recipe]
    optimizer = recipe.model_dump()["optimizer"]
    values = _values(space.domains[path], count)
    return [
        type(recipe).parse({**recipe.model_dump(), "optimizer": {**optimizer, "lr": value}})
        for value in values
    ]


def steadiest(shortlist: Sequence[Rate], *draws: Mapping[Rate, float]) -> Rate:
    """Return the rate with the best mean score; the first one on a tie.

    Args:
        shortlist: the rates, best first, by the keys of `draws`.
        draws: their scores in each round, higher is better; a rate without a score diverged there.
    """
    steady = [name for name in shortlist if all(name in scores for scores in draws)]
    known = steady or shortlist[:1]
    return max(known, key=lambda name: statistics.fmean(s[name] for s in draws if name in s))


def _values(domain: Domain, count: int) -> Sequence[float]:
    if not isinstance(domain, Float):
        return list(domain.extremes())
    spread = np.geomspace if domain.log else np.linspace
    between = spread(domain.low, domain.high, count).tolist()
    return [domain.low, *between[1:-1], domain.high]  # exact ends, without rounding
