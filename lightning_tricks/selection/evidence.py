"""Estimates of how good a search's recipes are, which also use the scores of similar recipes."""

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
"""Candidate shares of the variance of scores: the additive effects of stages, the effects shared by
near recipes, and each recipe's own effect. The rest is training noise."""
NEAR = 0.25
"""Length scale of nearness: the share of stages in which near recipes may differ."""
FACTORS, PASSES, LEAST_GAIN = (0.2, 5.0), 2, 0.25
"""Factors tried on a stage's weight, number of passes over all stages, and the minimum rise of the
log-likelihood for a change to stay."""


def shrunk(
    recipes: Sequence[Tricks], scores: Sequence[float], space: Space[Any], mode: Mode
) -> list[float]:
    """Return how good each recipe probably is, from its own score and those of similar recipes.

    The best score of many is partly luck. A Gaussian process over recipes (Rasmussen and Williams, 2006)
    shrinks each score toward the scores of recipes with the same tricks. Its variance shares and the
    stages' weights maximize the likelihood of the scores. Scores enter as normal quantiles of their
    ranks (Salinas et al., 2020), so one very bad score does not dominate.

    Args:
        recipes: recipes of the complete trials.
        scores: their scores; the mean over repeats if there are several.
        space: the recipes' search space.
        mode: whether lower or higher scores are better.

    Returns:
        A number for each recipe; higher is better. Only their order is meaningful.
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
    """Posterior mean of the scores without noise."""


def _best_fit(stages: Matrix, targets: Matrix) -> _Fit:
    """Return the most likely Gaussian process among those tried.

    Args:
        stages: similarity of each pair of recipes in each stage.
        targets: scores with variance 1.
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
    """Return the Gaussian process with given variance shares, and the likelihood of the scores."""
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
    """Return the similarity of each pair of recipes in one stage, from 0 to 1."""
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
    """Return the relative positions of a trick's numbers in their ranges, from 0 to 1."""
    path = f"{stage}.{getattr(trick, 'kind', '')}"
    found = []
    for name in getattr(type(trick), "model_fields", ()):
        domain = space.domains.get(f"{path}.{name}")
        if isinstance(domain, (Float, Int, OneMinus)):
            found.append(_share(domain, float(getattr(trick, name))))
    return found


def _share(domain: Float | Int | OneMinus, value: float) -> float:
    """Return the relative position of a number in its range."""
    low, high = map(float, domain.extremes())
    if isinstance(domain, OneMinus):
        low, high, value = 1 - high, 1 - low, 1 - value
    if isinstance(domain, OneMinus) or domain.log:
        low, high, value = np.log([low, high, max(value, 1e-300)])
    return (value - low) / (high - low) if high > low else 0.0
