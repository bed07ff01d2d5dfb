"""How good the recipes of a search are by all evidence: what similar recipes scored counts, too."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lightning_tricks.scores import Mode
from lightning_tricks.space.domains import Float, Int, OneMinus
from lightning_tricks.space.space import Space
from lightning_tricks.tricks.recipe import Tricks

Matrix = NDArray[np.floating[Any]]

SHARES = [
    (additive, near, own)
    for additive in (0.1, 0.3, 0.5, 0.7)
    for near in (0.0, 0.2, 0.4)
    for own in (0.0, 0.1, 0.3)
    if additive + near + own < 0.95
]
"""Shares of the variance of scores that are tried: what stages add one by one, what recipes near each
other have in common, and what a recipe has alone. The rest is the noise of a training."""
NEAR = 0.25
"""Share of the stages in which two recipes may differ and still be near each other."""
FACTORS, PASSES, LEAST_GAIN = (0.2, 5.0), 2, 0.25
"""By what the weight of a stage is changed, how often all stages are tried, and by how much the
logarithm of the likelihood must rise for a change to stay."""


def shrunk(
    recipes: Sequence[Tricks], scores: Sequence[float], space: Space[Any], mode: Mode
) -> list[float]:
    """Return how good each recipe probably is, from its own score and those of similar recipes.

    The best score of many is partly luck. A Gaussian process over recipes (Rasmussen and Williams, 2006)
    shrinks each score toward what recipes with the same tricks scored. The shares of its variance, and
    how much each stage counts, are those under which the scores are most likely. Scores enter as normal
    quantiles of their ranks (Salinas et al., 2020), so a recipe that diverged does not decide for all.

    Args:
        recipes: the recipes of the complete trials.
        scores: of these; a mean over repeats where a trial has several.
        space: that they are from.
        mode: whether less or more is better.

    Returns:
        A number for each recipe; more is better. Only their order has a meaning.
    """
    better = [float(score if mode == "max" else -score) for score in scores]
    stages = [_alike_in(stage, recipes, space) for stage in type(recipes[0]).model_fields]
    varied = [stage for stage in stages if stage.min() < 1]
    if len(recipes) < 3 or len(set(scores)) < 2 or not varied:
        return better
    targets = stats.norm.ppf((stats.rankdata(better) - 0.5) / len(better))
    targets /= targets.std()
    return [float(value) for value in _best_fit(np.stack(varied), targets).posterior]


class _Fit(NamedTuple):
    likelihood: float
    shares: tuple[float, float, float]
    posterior: Matrix
    """What the scores probably are without noise."""


def _best_fit(stages: Matrix, targets: Matrix) -> _Fit:
    """Return the most likely Gaussian process of those that are tried.

    Args:
        stages: how alike each pair of recipes is in each stage.
        targets: scores with a variance of one.
    """
    weights = np.ones(len(stages))

    def best(shares: Sequence[tuple[float, float, float]]) -> _Fit:
        alike = np.tensordot(weights / weights.sum(), stages, 1)
        return max((_fit(alike, each, targets) for each in shares), key=lambda fit: fit.likelihood)

    found = best(SHARES)
    for _ in range(PASSES):
        for stage, factor in itertools.product(range(len(stages)), FACTORS):
            weights[stage] *= factor
            changed = best([found.shares])
            if changed.likelihood > found.likelihood + LEAST_GAIN:
                found = changed
            else:
                weights[stage] /= factor
        found = best(SHARES)
    return found


def _fit(alike: Matrix, shares: tuple[float, float, float], targets: Matrix) -> _Fit:
    """Return how likely scores are where some shares of their variance have these origins."""
    additive, near, own = shares
    unit = np.eye(len(targets))
    kernel = additive * alike + near * np.exp(-(1 - alike) / NEAR) + own * unit
    noisy = kernel + (1 - sum(shares)) * unit
    solved = np.linalg.solve(noisy, np.column_stack([targets, np.ones(len(targets))]))
    mean = solved[:, 0].sum() / solved[:, 1].sum()  # by generalized least squares
    weights = solved[:, 0] - mean * solved[:, 1]
    likelihood = -0.5 * float((targets - mean) @ weights + np.linalg.slogdet(noisy)[1])
    return _Fit(likelihood, shares, mean + kernel @ weights)


def _alike_in(stage: str, recipes: Sequence[Tricks], space: Space[Any]) -> Matrix:
    """Return how alike each pair of recipes is in one stage, from 0 to 1."""
    groups: dict[Any, list[int]] = {}
    for at, recipe in enumerate(recipes):
        trick = getattr(recipe, stage)
        groups.setdefault(getattr(trick, "kind", trick), []).append(at)
    found = np.zeros((len(recipes), len(recipes)))
    for members in groups.values():
        places = np.array([_place(getattr(recipes[at], stage), stage, space) for at in members])
        gaps = ((places[:, None] - places[None]) ** 2).sum(-1)
        found[np.ix_(members, members)] = np.exp(-4 * gaps)
    return found


def _place(trick: object, stage: str, space: Space[Any]) -> list[float]:
    """Return where the numbers of a trick lie in their ranges, from 0 to 1."""
    path = f"{stage}.{getattr(trick, 'kind', '')}"
    found = []
    for name in getattr(type(trick), "model_fields", ()):
        domain = space.domains.get(f"{path}.{name}")
        if isinstance(domain, (Float, Int, OneMinus)):
            found.append(_share(domain, float(getattr(trick, name))))
    return found


def _share(domain: Float | Int | OneMinus, value: float) -> float:
    """Return where a number lies in its range."""
    low, high = map(float, domain.extremes())
    if isinstance(domain, OneMinus):
        low, high, value = 1 - high, 1 - low, 1 - value
    if isinstance(domain, OneMinus) or domain.log:
        low, high, value = np.log([low, high, max(value, 1e-300)])
    return (value - low) / (high - low) if high > low else 0.0
