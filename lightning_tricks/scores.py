"""Scores: which of two is better, said once for all that rank them, and where one is read."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
from optuna.trial import FrozenTrial

from lightning_tricks.errors import InputError

PREFIX = "tricks:"
"""Begins the names of all that is kept with studies and trials, so that none of the user's is one."""
OUTCOME = f"{PREFIX}outcome"
"""Under this name a finished trial keeps how it ended."""
LOSS = "val/loss"
"""Under this name the metrics of an epoch hold the validation loss, whatever the task calls it."""


def is_own(trial: FrozenTrial) -> bool:
    """Tell whether a finished trial was trained here: a user may add others of the same parameters."""
    return OUTCOME in trial.user_attrs


Mode = Literal["min", "max"]
"""Whether less or more is better."""
Rank = tuple[float, float, int]
"""Sorts the best first."""


def without_split(name: str) -> str:
    """Return the name of a metric without its split: `accuracy` of `val/accuracy`, or all of it."""
    return name.partition("/")[2] or name


def test_name(monitor: str) -> str:
    """Return what the test split's metric is called: `test_loss` for `val_loss`, `test/f1` for `f1`."""
    if re.match(r"val[/_]", monitor):
        return f"test{monitor[3:]}"
    return f"test/{without_split(monitor)}"


def is_better(score: float, other: float, mode: Mode) -> bool:
    """Tell whether a score is better than another."""
    return score > other if mode == "max" else score < other


def best(scores: Sequence[float], mode: Mode) -> float:
    """Return the best of some scores."""
    return max(scores) if mode == "max" else min(scores)


def rank(number: int, score: float, epochs: Sequence[Mapping[str, Any]], mode: Mode) -> Rank:
    """Return the place of a trial: by its score, of equals by the loss, then the earlier first.

    Scores of small validation splits are often equal; the loss tells apart what they cannot.

    Args:
        number: of the trial.
        score: of the trial.
        epochs: of the trial, with the metrics of each; the validation loss of the last one counts.
        mode: whether less or more is better.
    """
    loss = epochs[-1]["metrics"].get(LOSS, math.inf) if epochs else math.inf
    return (-score if mode == "max" else score, math.inf if math.isnan(loss) else loss, number)


def rank_of(trial: FrozenTrial, mode: Mode) -> Rank:
    """Return the place of a trial that used its whole budget."""
    epochs = trial.user_attrs.get(OUTCOME, {}).get("epochs", ())
    return rank(trial.number, trial.value or 0.0, epochs, mode)


def monitored(trainer: pl.Trainer, monitor: str) -> float:
    """Return the latest value of a logged metric.

    Raises:
        InputError: if no metric of that name was logged; lists those that were.
    """
    if monitor not in trainer.callback_metrics:
        raise InputError(
            f"monitor {monitor!r} is never logged; must be one of {sorted(trainer.callback_metrics)}"
        )
    return float(trainer.callback_metrics[monitor])
