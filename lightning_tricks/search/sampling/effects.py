"""Which options are good: what each adds to the score, and how much that is in doubt."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

EFFECT, NOISE, LEVEL = 0.15, 0.3, 1.0
"""Variances, where that of the scores is one: of an option's effect, of a training, of the mean."""
SHRINK = 0.5
"""The share of the doubt that is drawn. With less of it fewer trials go to options that hardly can win
(Chapelle & Li, 2011)."""

Option = tuple[str, Any]
"""A parameter, and one of its choices."""


def draw_effects(
    ended: Sequence[FrozenTrial],
    running: Sequence[FrozenTrial],
    direction: StudyDirection,
    seed: int,
    doubt: float = SHRINK,
) -> Mapping[Option, float]:
    """Draw what each option adds to the score, from what may be believed after some trials.

    That is the posterior of a Bayesian linear regression of the scores on the options that were
    chosen, with a share of its deviation. To take the best of what was drawn is Thompson sampling
    (Thompson, 1933): an option is tried as often as it is likely to be the best.

    Args:
        ended: complete or pruned trials, one at least.
        running: trials without a score. What they will tell of is less in doubt.
        direction: in which scores are better.
        seed: of what is drawn.
        doubt: the share of the deviation that is drawn.
    """
    options = _options([*ended, *running])
    told, untold = _chosen(ended, options), _chosen(running, options)
    prior = np.diag([1 / EFFECT] * len(options) + [1 / LEVEL])
    known = prior + told.T @ told / NOISE
    mean = np.linalg.solve(known, told.T @ _quantiles(ended, direction) / NOISE)
    factor = np.linalg.cholesky(known + untold.T @ untold / NOISE)
    noise = np.random.default_rng(seed).normal(size=len(mean))
    drawn = mean + doubt * np.linalg.solve(factor.T, noise)
    return dict(zip(options, drawn.tolist(), strict=False))  # the last is the mean of all


def _options(trials: Sequence[FrozenTrial]) -> list[Option]:
    known = {name: known for trial in trials for name, known in trial.distributions.items()}
    return [
        (name, choice)
        for name, distribution in sorted(known.items())
        if isinstance(distribution, CategoricalDistribution)
        for choice in distribution.choices
    ]


def _chosen(trials: Sequence[FrozenTrial], options: Sequence[Option]) -> NDArray[np.float64]:
    """Return a row for each trial: 1 at the options that it has, and at its end, else 0."""
    rows = [[*(o in trial.params.items() for o in options), True] for trial in trials]
    return np.array(rows, dtype=float).reshape(len(trials), len(options) + 1)


def _quantiles(trials: Sequence[FrozenTrial], direction: StudyDirection) -> NDArray[np.float64]:
    """Return the normal quantile of each trial's rank (Salinas et al., 2020).

    So neither the unit of scores matters, nor one that is far off. Pruned trials share the last ranks.
    """
    sign = 1 if direction == StudyDirection.MAXIMIZE else -1
    complete = [trial.state == TrialState.COMPLETE and trial.value is not None for trial in trials]
    scores = [
        sign * (trial.value or 0.0) if ended else -np.inf
        for trial, ended in zip(trials, complete, strict=True)
    ]
    quantiles: NDArray[np.float64] = stats.norm.ppf((stats.rankdata(scores) - 0.5) / len(trials))
    return quantiles
