"""The arms of an ablation: recipes that differ by one trick, and the learning rates to try each at."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from lightning_tricks.space.domains import Domain, Float
from lightning_tricks.space.space import Space
from lightning_tricks.tricks.recipe import Tricks, describe

RATES = 6
"""So many learning rates are tried for every arm, once each."""
AGAIN = 2
"""So many of them, the best, are tried once more: at the edge of what diverges a rate is lucky once."""
STRONGEST = 3
"""Of so many tricks, the pairs are tried."""

Rate = TypeVar("Rate")
Family = Literal["leave one out", "add one in", "pair"]


@dataclass(frozen=True)
class Arm:
    """A recipe to compare with the one that it differs from."""

    family: Family
    stages: tuple[str, ...]
    """In which it differs: one, or two of a pair."""
    trick: str
    """Which trick is there in one of the two recipes, and not in the other."""
    recipe: Tricks

    @property
    def name(self) -> str:
        """Unique among the arms of a champion."""
        return (
            f"{'plain with' if self.family == 'add one in' else 'without'} {' and '.join(self.stages)}"
        )


def arms(space: Space[Any], champion: Tricks, plain: Tricks) -> list[Arm]:
    """Return the champion without each of its tricks, and plain with each of them.

    Two recipes that differ in the learning rate alone are no arms, since each is to have its own.

    Args:
        space: of the search, which holds both.
        champion: the recipe whose tricks are asked about.
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


def pairs(space: Space[Any], champion: Tricks, plain: Tricks, worth: Mapping[str, float]) -> list[Arm]:
    """Return the champion without two of its strongest tricks at once.

    Args:
        space: of the search.
        champion: the recipe whose tricks are asked about.
        plain: the recipe without tricks.
        worth: of each of the champion's tricks, by stage.
    """
    strongest = sorted(worth, key=lambda stage: -abs(worth[stage]))[:STRONGEST]
    return [
        Arm("pair", two, " × ".join(two), _with(space, champion, plain, two))
        for two in itertools.combinations(strongest, 2)
    ]


def _with(space: Space[Any], recipe: Tricks, other: Tricks, stages: Sequence[str]) -> Tricks:
    """Return a recipe with some stages of another."""
    taken = {stage: other.model_dump()[stage] for stage in stages}
    changed: Tricks = space.nearest(type(recipe).parse({**recipe.model_dump(), **taken}))
    return changed


def rates(space: Space[Any], recipe: Tricks, count: int = RATES) -> list[Tricks]:
    """Return a recipe at several learning rates, evenly on a log scale over the range of the search.

    Where the rate is pinned, or is one of a few, these are all.
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
    """Return which of some rates has the best mean; of equals the one that is named first.

    Args:
        shortlist: the rates, the best first, as each draw calls them.
        draws: their scores in each, where more is better; who has none in one of them diverged there.
    """
    steady = [name for name in shortlist if all(name in scores for scores in draws)]
    known = steady or shortlist[:1]
    return max(known, key=lambda name: statistics.fmean(s[name] for s in draws if name in s))


def _values(domain: Domain, count: int) -> Sequence[float]:
    if not isinstance(domain, Float):
        return list(domain.extremes())
    spread = np.geomspace if domain.log else np.linspace
    between = spread(domain.low, domain.high, count).tolist()
    return [domain.low, *between[1:-1], domain.high]  # the ends exactly, which rounding may miss
