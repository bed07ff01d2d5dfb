"""Numbers, times and names in the format of MLflow's tables."""

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
"""Amount added to the champion's ranking so that it comes first."""
RECIPE_TYPE = "recipe.type"
"""Tag: the type of a trial's recipe."""


def milliseconds(seconds: float | None = None) -> int:
    """Return a time, by default now, in milliseconds since 1970."""
    return int(1000 * (time.time() if seconds is None else seconds))


def significant(value: float) -> float:
    """Round to five significant digits: the UI's cells show about ten characters."""
    return float(f"{value:.5g}")


def metrics_at(step: int, values: Mapping[str, float], when: int) -> list[Metric]:
    """Return the metrics of one epoch, under names that MLflow accepts.

    Args:
        step: the epoch's number.
        values: values by the user's metric names.
        when: time in milliseconds since 1970.
    """
    return [Metric(key_of(name), significant(value), when, step) for name, value in values.items()]


def own_metrics(step: int, values: Mapping[str, float], when: int) -> list[Metric]:
    """Return the package's own metrics, under names that no user's metric has in MLflow."""
    return [Metric(name, significant(value), when, step) for name, value in values.items()]


def ranking(score: float, *, first: bool, maximize: bool, when: int) -> Metric:
    """Return the metric that sorts the table of trials.

    It is the rounded score. MLflow sorts by one column, and the champion must come first even if its
    score in the search is not the best. So its value is moved out of reach of the others.

    Args:
        score: the score of a trial that used its full budget.
        first: whether the trial is the champion.
        maximize: whether higher scores are better.
        when: time in milliseconds since 1970.
    """
    value = significant(score)
    lead = abs(value) + OUT_OF_REACH if first else 0.0
    return Metric(RANKING, value + lead if maximize else value - lead, when, 0)


def run_name(number: int, role: str = "", *, search: bool = True) -> str:
    """Return the name of a trial's run; runs of a verdict or an ablation start with a v."""
    if not search:
        return f"v{number:03d} · {role}"
    return f"{number:03d} · {role}" if role else f"{number:03d}"


def shown(value: Any) -> str:
    """Return a hyperparameter as text, for a param of a run."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)
