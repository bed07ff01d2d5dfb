"""One training: all that has to be known to do it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from lightning_tricks.task.task import Task
from lightning_tricks.trial.result import Report
from lightning_tricks.tricks.recipe import Tricks


@dataclass(frozen=True, eq=False)
class Training:
    """One training of a recipe, alone or beside others.

    The same task, tricks and seed give the same result on one machine.
    """

    task: Task
    """What to train."""
    tricks: Tricks
    """How."""
    seed: int
    """Of everything that is random in it."""
    report: Report = lambda epoch: False
    """Is told of each epoch, those before the checkpoint included; returns whether to stop."""
    interrupted: Callable[[], bool] = lambda: False
    """Is asked before each batch whether all is to be dropped."""
    checkpoint: Path | None = None
    """The file to write checkpoints to. If it holds one of this very training, it goes on from there."""
    stops: Callable[[], bool] = lambda: False
    """Tells whether to stop, once all trainings beside it have reported an epoch."""

    def with_own_split(self) -> Self:
        """Return the training with the data that its seed gives it."""
        return replace(self, task=self.task.of_seed(self.seed))
