"""Which paused trials go on: a quarter of those that reached the same epoch (Li et al., 2020, ASHA)."""

import math
from collections.abc import Sequence

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.search import keys
from lightning_tricks.search.outcomes import is_repeat

STRICT = False
GOING_ON = 4
"""One in so many of the trials that reached a rung goes on."""


def is_paused(trial: FrozenTrial) -> bool:
    """Return whether a trial waits at the epoch after which it pauses."""
    outcome, held = trial.user_attrs.get(keys.OUTCOME), trial.user_attrs.get(keys.PAUSE_AFTER)
    if trial.state != TrialState.WAITING or outcome is None or held is None:
        return False
    reached = outcome["epochs"][-1]["number"] if outcome["epochs"] else -1
    return bool(reached >= held)


def promotable(
    trials: Sequence[FrozenTrial], rungs: Sequence[int], direction: StudyDirection
) -> list[int]:
    """Return the numbers of the paused trials that go on now, those that came farthest first.

    Args:
        trials: all trials of the study.
        rungs: numbers of the epochs after which trials pause.
        direction: direction of better scores.
    """
    found: list[int] = []
    for rung in sorted(rungs, reverse=True):
        ranked = _ranked(trials, rung, direction)
        best = ranked[: len(ranked) // GOING_ON]
        new = [trial.number for trial in best if _waits_at(trial, rung)]
        if STRICT:
            gone = sum(
                not _waits_at(t, rung)
                and keys.PAUSE_AFTER in t.user_attrs
                and (t.user_attrs[keys.PAUSE_AFTER] is None)
                for t in ranked
            )
            new = new[: max(len(ranked) // GOING_ON - gone, 0)]
        found += new
    return found


def hopeless(
    trials: Sequence[FrozenTrial], rungs: Sequence[int], direction: StudyDirection, n_trials: int
) -> list[int]:
    """Return the numbers of the paused trials that cannot go on, whatever the trials to come are.

    Args:
        trials: all trials of the study.
        rungs: numbers of the epochs after which trials pause.
        direction: direction of better scores.
        n_trials: number of trials that the study will hold.
    """
    return [
        trial.number
        for rung in rungs
        for trial in _ranked(trials, rung, direction)[n_trials // GOING_ON :]
        if _waits_at(trial, rung)
    ]


def _ranked(trials: Sequence[FrozenTrial], rung: int, direction: StudyDirection) -> list[FrozenTrial]:
    """Return the trials that reached a rung, best first."""
    sign = -1 if direction == StudyDirection.MAXIMIZE else 1
    costs = {trial.number: cost for trial in trials if (cost := _cost(trial, rung, sign)) is not None}
    reached = [trial for trial in trials if trial.number in costs]
    return sorted(reached, key=lambda trial: (costs[trial.number], trial.number))


def _cost(trial: FrozenTrial, rung: int, sign: int) -> float | None:
    """Return a trial's score at a rung, lower is better; None if it did not reach the rung."""
    values = trial.intermediate_values
    if trial.state == TrialState.FAIL or is_repeat(trial):
        return None
    if rung in values:
        return sign * values[rung]
    if trial.state == TrialState.COMPLETE and values:  # it stopped early by itself
        return sign * values[max(values)]
    return math.inf if trial.state == TrialState.PRUNED else None  # it diverged before


def _waits_at(trial: FrozenTrial, rung: int) -> bool:
    return is_paused(trial) and max(trial.intermediate_values) == rung
