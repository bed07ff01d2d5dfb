"""The inputs of one training."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from lightning_tricks.task.task import Task
from lightning_tricks.trial.job import Job
from lightning_tricks.trial.result import Report
from lightning_tricks.tricks.recipe import Tricks


@dataclass(frozen=True, eq=False)
class Training:
    """The inputs of one training of a recipe, alone or in a group.

    The same task, tricks and seed give the same result on one machine.
    """

    task: Task
    """Task to train."""
    tricks: Tricks
    """Recipe to train it with."""
    seed: int
    """Seed of everything random."""
    report: Report = lambda epoch: False
    """Called with each epoch, including those before the checkpoint; returns whether to stop."""
    interrupted: Callable[[], bool] = lambda: False
    """Called before each batch; returns whether to drop the training."""
    checkpoint: Path | None = None
    """File for checkpoints. If it holds one of the same training, training resumes from it."""
    stops: Callable[[], bool] = lambda: False
    """Returns whether to stop; called once all trainings of the trial have reported an epoch."""
    pause_after: int | None = None
    """Number of the epoch after which it pauses, with a checkpoint; None to train to the end."""

    @classmethod
    def of(cls, task: Task, job: Job, report: Report, interrupted: Callable[[], bool]) -> Self:
        """Return the training of a job."""
        return cls(
            task,
            job.tricks,
            job.seed,
            report,
            interrupted,
            job.checkpoint,
            pause_after=job.pause_after,
        )

    def with_own_split(self) -> Self:
        """Return the training with the data split of its seed."""
        return replace(self, task=self.task.of_seed(self.seed))
