"""Trials as numbers, for a regression of scores on the chosen options."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from scipy import stats

from lightning_tricks.search.order import mode_of, order_of

Option = tuple[str, Any]
"""A parameter's name and one of its choices."""


def options_of(trials: Sequence[FrozenTrial]) -> list[Option]:
    """Return all options that the trials could choose from."""
    known = {name: known for trial in trials for name, known in trial.distributions.items()}
    return [
        (name, choice)
        for name, distribution in sorted(known.items())
        if isinstance(distribution, CategoricalDistribution)
        for choice in distribution.choices
    ]


def features_of(
    trials: Sequence[FrozenTrial], options: Sequence[Option], prior: Mapping[Option, float]
) -> NDArray[np.float64]:
    """Return a row for each trial: 1 for each option that it has, 1, and what is expected of it."""
    chosen = _chosen(trials, options)
    expected = chosen[:, :-1] @ np.array([prior.get(option, 0.0) for option in options])
    return np.column_stack([chosen, expected])


def _chosen(trials: Sequence[FrozenTrial], options: Sequence[Option]) -> NDArray[np.float64]:
    """Return a row for each trial: 1 for each option that it has, else 0; the last column is 1."""
    rows = [[*(o in trial.params.items() for o in options), True] for trial in trials]
    return np.array(rows, dtype=float).reshape(len(trials), len(options) + 1)


def quantiles_of(trials: Sequence[FrozenTrial], direction: StudyDirection) -> NDArray[np.float64]:
    """Return the normal quantile of each trial's place (Salinas et al., 2020).

    This removes the unit of the scores, and outliers. Trials that stopped are compared at the epochs
    that they reached.
    """
    places = np.array(order_of(trials, mode_of(direction)))
    quantiles: NDArray[np.float64] = stats.norm.ppf((places - 0.5) / len(trials))
    return quantiles
