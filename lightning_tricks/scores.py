"""Which of two trials is better: said once, for all that rank them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial

OUTCOME = "outcome"
"""Under this name a finished trial keeps how it ended."""
LOSS = "val/loss"
"""Under this name the metrics of an epoch hold the validation loss, whatever the task calls it."""

Rank = tuple[float, float, int]
"""Sorts the best first."""


def rank(number: int, score: float, epochs: Sequence[Mapping[str, Any]], *, maximize: bool) -> Rank:
    """Return the place of a trial: by its score, of equals by the loss, then the earlier first.

    Scores of small validation splits are often equal; the loss tells apart what they cannot.

    Args:
        number: of the trial.
        score: of the trial.
        epochs: of the trial, with the metrics of each; the validation loss of the last one counts.
        maximize: whether more is better.
    """
    loss = epochs[-1]["metrics"].get(LOSS, math.inf) if epochs else math.inf
    return (-score if maximize else score, math.inf if math.isnan(loss) else loss, number)


def rank_of(trial: FrozenTrial, *, maximize: bool) -> Rank:
    """Return the place of a trial that used its whole budget."""
    epochs = trial.user_attrs.get(OUTCOME, {}).get("epochs", ())
    return rank(trial.number, trial.value or 0.0, epochs, maximize=maximize)
