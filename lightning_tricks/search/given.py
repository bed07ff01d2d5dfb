"""Trials whose record is given, and not drawn: that of a LightningModule as it is."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from lightning_tricks.scores import PREFIX
from lightning_tricks.space.space import Space
from lightning_tricks.tricks.record import Tricks

RECORD = f"{PREFIX}record"
"""Name under which such a trial holds its record."""


def given_record(trial: FrozenTrial | optuna.Trial) -> Mapping[str, Any] | None:
    """Return the record that a trial was given; None if it is to be drawn."""
    held: Mapping[str, Any] | None = trial.user_attrs.get(RECORD)
    return held


def enqueue(study: optuna.Study, space: Space[Any], record: Tricks, attrs: Mapping[str, Any]) -> None:
    """Put a trial of a record into the queue of a study, as parameters where the space has it."""
    if space.nearest(record) == record:
        study.enqueue_trial(space.params(record), user_attrs=dict(attrs))
    else:
        study.enqueue_trial({}, user_attrs={**attrs, RECORD: record.model_dump()})
