"""The order of trials, some of which stopped before the others."""

import math
from collections.abc import Mapping, Sequence

END = 2**62
"""Stands for the epoch after all others."""


def places(reports: Sequence[Mapping[int, float]], finals: Sequence[float | None]) -> list[float]:
    """Return each trial's place, from 1 for the worst to the number of trials; equal trials share one.

    Scores are compared only at equal epochs. All trials are ordered by their scores at the epoch where
    the first of them stopped. Those that reached the next epoch at which one stopped then exchange
    their places, by their scores there, and so on to the end.

    Args:
        reports: each trial's scores by epoch; higher is better.
        finals: each trial's final score; None if it was stopped, minus infinity if it diverged.

    Example:
        >>> places([{0: 0.5, 1: 0.6}, {0: 0.4, 1: 0.9}, {0: 0.7}], [0.6, 0.9, None])
        [1.0, 2.0, 3.0]
    """
    trials = [_of(report, final) for report, final in zip(reports, finals, strict=True)]
    stops = {max(report) for report, final in trials if final is None}
    found = list(range(len(trials)))
    last = [(END, -math.inf)] * len(trials)
    for epoch in [*sorted(stops), END]:
        scores = {at: report.get(epoch, final) for at, (report, final) in enumerate(trials)}
        reached = {at: (epoch, score) for at, score in scores.items() if score is not None}
        own = sorted(found[at] for at in reached)
        order = sorted(reached, key=lambda at: (reached[at], found[at]))
        for place, at in zip(own, order, strict=True):
            found[at], last[at] = place, reached[at]
    alike: dict[tuple[int, float], list[int]] = {}
    for at, place in enumerate(found):
        alike.setdefault(last[at], []).append(place + 1)
    return [sum(alike[key]) / len(alike[key]) for key in last]


def _of(report: Mapping[int, float], final: float | None) -> tuple[Mapping[int, float], float | None]:
    """Return a trial's scores and its end; one that diverged, or has no score, is the worst anywhere."""
    lost = final == -math.inf or (final is None and not report)
    return ({}, -math.inf) if lost else (report, final)
