"""Numbers, times and names as MLflow's tables show them."""

import time
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Metric

from lightning_tricks.tracking.names import key_of

Metrics = list[Metric]
NAME, DESCRIPTION = "mlflow.runName", "mlflow.note.content"
"""The tags that the UI shows as a run's name and description."""
RANKING = "ranking"
OUT_OF_REACH = 1e9
"""By so much the champion is ranked above others."""
RECIPE_TYPE = "recipe.type"
"""The tag that names the type of a trial's recipe."""


def milliseconds(seconds: float | None = None) -> int:
    """Return a time, by default now, in milliseconds since the epoch."""
    return int(1000 * (time.time() if seconds is None else seconds))


def significant(value: float) -> float:
    """Round to five significant digits: the UI's cells show about ten characters."""
    return float(f"{value:.5g}")


def metrics_at(step: int, values: Mapping[str, float], when: int) -> list[Metric]:
    """Return the metrics of one epoch, under the names that MLflow takes.

    Args:
        step: the number of the epoch.
        values: by the names that the user gave them.
        when: milliseconds since the epoch.
    """
    return [Metric(key_of(name), significant(value), when, step) for name, value in values.items()]


def own_metrics(step: int, values: Mapping[str, float], when: int) -> list[Metric]:
    """Return metrics of the study's own, under names that no user's metric has in MLflow."""
    return [Metric(name, significant(value), when, step) for name, value in values.items()]


def ranking(score: float, *, first: bool, maximize: bool, when: int) -> Metric:
    """Return the metric by which the table of trials is sorted.

    It is the score as shown. MLflow sorts by one column, and the champion comes first, whose score in
    the search need not be the best: its number is out of reach for others.

    Args:
        score: of a trial that used its whole budget; the others come behind.
        first: whether the trial is the champion.
        maximize: whether more is better.
        when: milliseconds since the epoch.
    """
    value = significant(score)
    lead = abs(value) + OUT_OF_REACH if first else 0.0
    return Metric(RANKING, value + lead if maximize else value - lead, when, 0)


def run_name(number: int, role: str = "", *, search: bool = True) -> str:
    """Name the run of a trial; those of a verdict have numbers of their own, with a v."""
    if not search:
        return f"v{number:03d} · {role}"
    return f"{number:03d} · {role}" if role else f"{number:03d}"


def shown(value: Any) -> str:
    """Write a hyperparameter as a param of a run."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)
