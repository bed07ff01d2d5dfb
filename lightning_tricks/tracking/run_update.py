"""Updates of trials' runs in MLflow."""

from dataclasses import dataclass, field
from typing import Any, Literal

from mlflow.entities import Metric, RunData

Status = Literal["RUNNING", "SCHEDULED", "FINISHED", "KILLED", "FAILED"]
NOT_ENDED = ("RUNNING", "SCHEDULED")
"""Statuses of runs whose trial trains, or waits after a pause."""


@dataclass
class Update:
    """Data to write about one trial; a later update is merged into an earlier one."""

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[Metric] = field(default_factory=list)
    artifacts: dict[str, Any] = field(default_factory=dict)
    """Text, or data to write as JSON, by file name."""
    start: int | None = None
    """Start time, in milliseconds since 1970."""
    end: int | None = None
    status: Status | None = None
    gone: bool = False
    """Whether to remove the run, because the trial was put back in the queue."""

    def is_like(self, other: "Update") -> bool:
        """Return whether another update writes the same tags and numbers, at any time."""
        return self.tags == other.tags and _values(self) == _values(other)

    def is_held_by(self, run: RunData) -> bool:
        """Return whether a run already has these tags and numbers."""
        return self.tags.items() <= run.tags.items() and _values(self).items() <= run.metrics.items()

    def merge(self, later: "Update") -> None:
        """Add a later update."""
        self.params |= later.params
        self.tags |= later.tags
        self.metrics += later.metrics
        self.artifacts |= later.artifacts
        self.start = self.start or later.start
        self.end = later.end or self.end
        self.status = later.status or self.status
        self.gone = later.gone


def _values(update: Update) -> dict[str, float]:
    return {metric.key: metric.value for metric in update.metrics}
