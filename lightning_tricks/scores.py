"""Scores: which of two is better, for all code that ranks trials, and how to read one."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
from optuna.trial import FrozenTrial

from lightning_tricks.errors import InputError

PREFIX = "tricks:"
"""Prefix of all our names in studies and trials, so that they never clash with the user's."""
OUTCOME = f"{PREFIX}outcome"
"""Name under which a finished trial keeps how it ended."""
LOSS = "val/loss"
"""Name of the validation loss in the metrics of an epoch, whatever the task calls it."""


def is_own(trial: FrozenTrial) -> bool:
    """Tell whether a finished trial was trained here; a user may add others to the study."""
    return OUTCOME in trial.user_attrs


Mode = Literal["min", "max"]
"""Whether less or more is better."""
Rank = tuple[float, float, int]
"""Sort key that puts the best trial first."""


def without_split(name: str) -> str:
    """Return a metric's name without its split, such as `accuracy` for `val/accuracy`."""
    return name.partition("/")[2] or name


def test_name(monitor: str) -> str:
    """Return the name of a metric on the test split: `test_loss` for `val_loss`, `test/f1` for `f1`."""
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
    """Return the sort key of a trial: by score, then by validation loss, then the earlier trial first.

    Scores on small validation splits are often equal; then the loss decides.

    Args:
        number: the number of the trial.
        score: the score of the trial.
        epochs: the metrics of each epoch; the validation loss of the last one counts.
        mode: whether less or more is better.
    """
    loss = epochs[-1]["metrics"].get(LOSS, math.inf) if epochs else math.inf
    return (-score if mode == "max" else score, math.inf if math.isnan(loss) else loss, number)


def rank_of(trial: FrozenTrial, mode: Mode) -> Rank:
    """Return the sort key of a trial that used its whole budget."""
    epochs = trial.user_attrs.get(OUTCOME, {}).get("epochs", ())
    return rank(trial.number, trial.value or 0.0, epochs, mode)


def monitored(trainer: pl.Trainer, monitor: str) -> float:
    """Return the latest value of a logged metric.

    Raises:
        InputError: if no metric of that name was logged; the message lists the logged ones.
    """
    if monitor not in trainer.callback_metrics:
        raise InputError(
            f"monitor {monitor!r} is never logged; must be one of {sorted(trainer.callback_metrics)}"
        )
    return float(trainer.callback_metrics[monitor])
