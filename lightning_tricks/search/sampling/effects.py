"""Estimates of each option's effect on the score, with their uncertainty."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from lightning_tricks.search.sampling.features import Option, features_of, options_of, quantiles_of

EFFECT, NOISE, LEVEL = 0.15, 0.3, 1.0
"""Prior variances, for scores of variance 1: of an option's effect, of training noise, of the mean."""
TRUST, DOUBT = 0.7, 0.5
"""Prior mean and variance of the factor by which expected effects are true here: with a few trials, a
wrong expectation gets a factor near 0, and a reversed one a negative factor."""
SHRINK = 0.5
"""Factor on the posterior's standard deviation when effects are drawn. Below 1, fewer trials go to
options that can hardly win (Chapelle & Li, 2011)."""


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
    options, prior = options_of([*ended, *running]), prior or {}
    mean, known = _fitted(ended, options, direction, prior)
    untold = features_of(running, options, prior)
    factor = np.linalg.cholesky(known + untold.T @ untold / NOISE)
    noise = np.random.default_rng(seed).normal(size=len(mean))
    return _effects(mean + doubt * np.linalg.solve(factor.T, noise), options, prior)


def expected_effects(
    ended: Sequence[FrozenTrial], direction: StudyDirection, prior: Mapping[Option, float]
) -> dict[Option, float]:
    """Return each option's expected effect after some trials; see `draw_effects`."""
    options = options_of(ended)
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
    told = features_of(ended, options, prior)
    precision += told.T @ told / NOISE
    surprise = quantiles_of(ended, direction) - told @ expected
    return expected + np.linalg.solve(precision, told.T @ surprise / NOISE), precision


def _effects(
    posterior: NDArray[np.float64], options: Sequence[Option], prior: Mapping[Option, float]
) -> dict[Option, float]:
    """Return each option's effect: its own, and what was expected times the factor."""
    *own, _, factor = posterior.tolist()
    pairs = zip(options, own, strict=True)
    return {option: effect + factor * prior.get(option, 0.0) for option, effect in pairs}
