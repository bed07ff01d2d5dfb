"""What a group is asked to train."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lightning_tricks.task.task import Task
from lightning_tricks.trial.result import Report
from lightning_tricks.tricks.record import Tricks


@dataclass(frozen=True)
class Trainee:
    """A trial that is to be trained with others; see `trial.train`."""

    task: Task
    tricks: Tricks
    seed: int
    report: Report = lambda epoch: False
    checkpoint: Path | None = None
    stops: Callable[[], bool] = lambda: False
    """Tells whether it is to stop, once all trainings of the group have reported an epoch."""
