"""The trials that a proposal learns from."""

import copy
import heapq
from collections.abc import Sequence
from functools import partial

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.scores import rank_of
from lightning_tricks.search.order import mode_of
from lightning_tricks.search.promotion import is_paused

BEST, LATEST = 25, 175
"""Number of best and of latest finished trials that a proposal uses. TPE counts at most 25 trials as
good; its time grows with the number of the others."""
RUNNING = 64
"""Maximum number of running trials that a proposal takes into account."""


def ended_of(trials: Sequence[FrozenTrial], direction: StudyDirection) -> list[FrozenTrial]:
    """Return the finished and paused trials that a proposal uses: all of them up to 200.

    The trials of all Hyperband brackets count, as in Optuna's samplers: their scores are comparable.
    """
    known = [_as_pruned(t) if is_paused(t) else t for t in trials]
    ended = [t for t in known if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if len(ended) <= BEST + LATEST:
        return ended
    older = [t for t in ended[:-LATEST] if t.state == TrialState.COMPLETE]
    best = heapq.nsmallest(BEST, older, key=partial(rank_of, mode=mode_of(direction)))
    return sorted(best, key=lambda t: t.number) + ended[-LATEST:]


def repeats_at_the_end(ended: Sequence[FrozenTrial]) -> int:
    """Return how many of the latest trials in a row had the parameters of an earlier one.

    In a small space, the sampler repeats proposals once it knows the effects well.
    """
    count = 0
    for at in range(len(ended) - 1, 0, -1):
        if all(earlier.params != ended[at].params for earlier in ended[:at]):
            break
        count += 1
    return count


def running_of(trials: Sequence[FrozenTrial], but: int) -> list[FrozenTrial]:
    """Return the latest running trials as bad ones, except the trial with number `but`."""
    running = [t for t in trials if t.state == TrialState.RUNNING and t.number != but]
    return [_bad(t) for t in running[-RUNNING:]]


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial that did not end as one that was pruned at its last report.

    Its parameters are copied, because another thread may still add some to the original.
    """
    pruned = copy.copy(trial)
    pruned.state = TrialState.PRUNED
    pruned.params, pruned.distributions = dict(trial.params), dict(trial.distributions)
    return pruned


def _bad(trial: FrozenTrial) -> FrozenTrial:
    """Return a running trial as one that was pruned before its first report: the worst possible."""
    bad = _as_pruned(trial)
    bad.intermediate_values = {}
    return bad
