"""The order of a study's trials, by what is known of each."""

import math
from collections.abc import Sequence

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.scores import OUTCOME, Mode
from lightning_tricks.selection.places import places


def mode_of(direction: StudyDirection) -> Mode:
    """Return whether less or more is better in a study of this direction."""
    return "max" if direction == StudyDirection.MAXIMIZE else "min"


def order_of(trials: Sequence[FrozenTrial], mode: Mode) -> list[float]:
    """Return the places of finished and paused trials, 1 for the worst; see `places`."""
    sign = 1 if mode == "max" else -1
    reports = [{n: sign * value for n, value in t.intermediate_values.items()} for t in trials]
    return places(reports, [_final(trial, sign) for trial in trials])


def _final(trial: FrozenTrial, sign: int) -> float | None:
    """Return a trial's final score, higher is better; None if it was stopped."""
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        return sign * trial.value
    lost = trial.state == TrialState.FAIL or trial.user_attrs.get(OUTCOME, {}).get("diverged")
    return -math.inf if lost else None
