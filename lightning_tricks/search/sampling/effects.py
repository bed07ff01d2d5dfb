"""Estimates of each option's effect on the score, with their uncertainty."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from scipy import stats

from lightning_tricks.search.order import mode_of, order_of

EFFECT, NOISE, LEVEL = 0.15, 0.3, 1.0
"""Prior variances, for scores of variance 1: of an option's effect, of training noise, of the mean."""
TRUST, DOUBT = 0.7, 0.5
"""Prior mean and variance of the factor by which expected effects are true here: with a few trials, a
wrong expectation gets a factor near 0, and a reversed one a negative factor."""
SHRINK = 0.5
"""Factor on the posterior's standard deviation when effects are drawn. Below 1, fewer trials go to
options that can hardly win (Chapelle & Li, 2011)."""

Option = tuple[str, Any]
"""A parameter's name and one of its choices."""


def draw_effects(
    ended: Sequence[FrozenTrial],
    running: Sequence[FrozenTrial],
    direction: StudyDirection,
    seed: int,
    doubt: float = SHRINK,
    prior: Mapping[Option, float] | None = None,
) -> Mapping[Option, float]:
    """Draw each option's effect on the score from its posterior after some trials.

    The posterior is that of a Bayesian linear regression of the scores on the chosen options; its
    standard deviation is scaled by `doubt`. Taking the option with the best draw is Thompson sampling
    (Thompson, 1933): each option is tried as often as it is likely to be the best.

    Args:
        ended: complete, pruned or paused trials, at least one.
        running: trials without a score. They lower the uncertainty about their options.
        direction: direction of better scores.
        seed: seed of the draw.
        doubt: factor on the posterior's standard deviation.
        prior: effects expected before the first trial; 0 for all that are not in it.
    """
    options, prior = _options([*ended, *running]), prior or {}
    mean, known = _fitted(ended, options, direction, prior)
    untold = _features(running, options, prior)
    factor = np.linalg.cholesky(known + untold.T @ untold / NOISE)
    noise = np.random.default_rng(seed).normal(size=len(mean))
    return _effects(mean + doubt * np.linalg.solve(factor.T, noise), options, prior)


def expected_effects(
    ended: Sequence[FrozenTrial], direction: StudyDirection, prior: Mapping[Option, float]
) -> dict[Option, float]:
    """Return each option's expected effect after some trials; see `draw_effects`."""
    options = _options(ended)
    mean, _ = _fitted(ended, options, direction, prior)
    return _effects(mean, options, prior)


def _fitted(
    ended: Sequence[FrozenTrial],
    options: Sequence[Option],
    direction: StudyDirection,
    prior: Mapping[Option, float],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the posterior's mean and precision.

    The entries are the options' own effects, the mean score, and the factor of the expected effects.
    """
    expected = np.array([0.0] * (len(options) + 1) + [TRUST])
    precision = np.diag([1 / EFFECT] * len(options) + [1 / LEVEL, 1 / DOUBT])
    if not ended:
        return expected, precision
    told = _features(ended, options, prior)
    precision += told.T @ told / NOISE
    surprise = _quantiles(ended, direction) - told @ expected
    return expected + np.linalg.solve(precision, told.T @ surprise / NOISE), precision


def _effects(
    posterior: NDArray[np.float64], options: Sequence[Option], prior: Mapping[Option, float]
) -> dict[Option, float]:
    """Return each option's effect: its own, and what was expected times the factor."""
    *own, _, factor = posterior.tolist()
    pairs = zip(options, own, strict=True)
    return {option: effect + factor * prior.get(option, 0.0) for option, effect in pairs}


def _features(
    trials: Sequence[FrozenTrial], options: Sequence[Option], prior: Mapping[Option, float]
) -> NDArray[np.float64]:
    """Return a row for each trial: 1 for each option that it has, 1, and what is expected of it."""
    chosen = _chosen(trials, options)
    expected = chosen[:, :-1] @ np.array([prior.get(option, 0.0) for option in options])
    return np.column_stack([chosen, expected])


def _options(trials: Sequence[FrozenTrial]) -> list[Option]:
    known = {name: known for trial in trials for name, known in trial.distributions.items()}
    return [
        (name, choice)
        for name, distribution in sorted(known.items())
        if isinstance(distribution, CategoricalDistribution)
        for choice in distribution.choices
    ]


def _chosen(trials: Sequence[FrozenTrial], options: Sequence[Option]) -> NDArray[np.float64]:
    """Return a row for each trial: 1 for each option that it has, else 0; the last column is 1."""
    rows = [[*(o in trial.params.items() for o in options), True] for trial in trials]
    return np.array(rows, dtype=float).reshape(len(trials), len(options) + 1)


def _quantiles(trials: Sequence[FrozenTrial], direction: StudyDirection) -> NDArray[np.float64]:
    """Return the normal quantile of each trial's place (Salinas et al., 2020).

    This removes the unit of the scores, and outliers. Trials that stopped are compared at the epochs
    that they reached.
    """
    places = np.array(order_of(trials, mode_of(direction)))
    quantiles: NDArray[np.float64] = stats.norm.ppf((places - 0.5) / len(trials))
    return quantiles
