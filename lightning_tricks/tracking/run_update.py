"""What is to be written about a trial."""

from dataclasses import dataclass, field
from typing import Any, Literal

from mlflow.entities import Metric, RunData

Status = Literal["RUNNING", "FINISHED", "KILLED", "FAILED"]


@dataclass
class Update:
    """What is to be written about one trial; a later one is merged into an earlier one."""

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[Metric] = field(default_factory=list)
    artifacts: dict[str, Any] = field(default_factory=dict)
    """Text, or data to be written as JSON, by file name."""
    start: int | None = None
    """Milliseconds since the epoch."""
    end: int | None = None
    status: Status | None = None
    gone: bool = False
    """The trial was put back in the queue: its run is removed."""

    def is_like(self, other: "Update") -> bool:
        """Tell whether another one writes the same tags and numbers, whenever that was."""
        return self.tags == other.tags and _values(self) == _values(other)

    def is_held_by(self, run: RunData) -> bool:
        """Tell whether a run has these tags and numbers already."""
        return self.tags.items() <= run.tags.items() and _values(self).items() <= run.metrics.items()

    def merge(self, later: "Update") -> None:
        """Add what came later."""
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
