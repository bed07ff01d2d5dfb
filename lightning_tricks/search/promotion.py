"""Which paused trials go on: one for six that paused, as in successive halving (Li et al., 2020)."""

import math
from collections.abc import Sequence

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.search.keys import OUTCOME, PAUSE_AFTER
from lightning_tricks.search.outcomes import is_repeat

GOING_ON, LEAST = 6, 3
"""Paused trials for each that goes on; and the least number that has, at the end of a search."""
MOST_WAITING = 20
"""The largest number of paused trials, each of which keeps a checkpoint; the worst end first."""


def is_paused(trial: FrozenTrial) -> bool:
    """Return whether a trial waits at the epoch after which it pauses."""
    outcome, after = trial.user_attrs.get(OUTCOME), trial.user_attrs.get(PAUSE_AFTER)
    if trial.state != TrialState.WAITING or outcome is None or after is None:
        return False
    reached = outcome["epochs"][-1]["number"] if outcome["epochs"] else -1
    return bool(reached >= after)


def promotable(
    trials: Sequence[FrozenTrial], rung: int, direction: StudyDirection, *, at_end: bool
) -> list[int]:
    """Return the numbers of the paused trials that go on now, the best first.

    Whenever six more trials have reached the rung, or ended before it, the best that waits goes on.

    Args:
        trials: all trials of the study.
        rung: number of the epoch after which trials pause.
        direction: direction of better scores.
        at_end: whether no further trial will be drawn.
    """
    waiting = _waiting(trials, rung, direction)
    gone = sum(_went_on(trial) for trial in trials)
    reached = len(waiting) + gone + sum(_ended(trial, rung) for trial in trials)
    wanted = max(reached // GOING_ON, LEAST if at_end else 0)
    return waiting[: max(wanted - gone, 0)]


def hopeless(
    trials: Sequence[FrozenTrial], rung: int, direction: StudyDirection, n_trials: int
) -> list[int]:
    """Return the numbers of the paused trials that cannot go on, whatever the trials to come are.

    The worst of more than `MOST_WAITING` are among them: others are in front of them.

    Args:
        trials: all trials of the study.
        rung: number of the epoch after which trials pause.
        direction: direction of better scores.
        n_trials: number of trials that the study will hold.
    """
    gone = sum(_went_on(trial) for trial in trials)
    hoping = max(n_trials // GOING_ON, LEAST) - gone
    return _waiting(trials, rung, direction)[min(max(hoping, 0), MOST_WAITING) :]


def _waiting(trials: Sequence[FrozenTrial], rung: int, direction: StudyDirection) -> list[int]:
    """Return the numbers of the trials that wait at a rung, best first."""
    sign = -1 if direction == StudyDirection.MAXIMIZE else 1
    there = [t for t in trials if is_paused(t) and t.user_attrs[PAUSE_AFTER] == rung]
    there.sort(key=lambda trial: (sign * trial.intermediate_values.get(rung, math.nan), trial.number))
    return [trial.number for trial in there]


def _went_on(trial: FrozenTrial) -> bool:
    """Return whether a trial that pauses has gone on."""
    return trial.user_attrs.get(PAUSE_AFTER, -1) is None


def _ended(trial: FrozenTrial, rung: int) -> bool:
    """Return whether a trial ended at a rung, or before it by itself."""
    known = trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and not is_repeat(trial)
    return known and trial.user_attrs.get(PAUSE_AFTER, -1) == rung
