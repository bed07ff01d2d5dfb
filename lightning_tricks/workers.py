"""Where trials run: one interface, and the simplest of its implementations.

Jobs go out, events come back. Workers know neither Optuna nor MLflow, and never wait for either.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lightning_tricks.ranks import RankDied, Ranks
from lightning_tricks.task import Task
from lightning_tricks.trial import Epoch, Result
from lightning_tricks.tricks import Tricks


@dataclass(frozen=True)
class Job:
    """One trial to be trained."""

    number: int
    tricks: Tricks
    seed: int
    checkpoint: Path
    """Where its checkpoints go, and from where it goes on."""


@dataclass(frozen=True)
class Reported:
    """A trial finished an epoch."""

    number: int
    epoch: Epoch


@dataclass(frozen=True)
class Ended:
    """A trial ended; its worker is free."""

    number: int
    result: Result
    """Without weights."""
    weights: Callable[[], Mapping[str, Tensor]]
    """Fetches the weights: most trials' are not wanted."""


@dataclass(frozen=True)
class Lost:
    """A trial's worker died, or hangs and was killed."""

    number: int
    reason: str


Event = Reported | Ended | Lost
Hear = Callable[[Event], bool]
"""Takes an event; returns whether its trial is to stop."""


class Workers(ABC):
    """Some workers, each of which trains one trial at a time."""

    @property
    @abstractmethod
    def free(self) -> int:
        """How many workers wait for a job."""

    @abstractmethod
    def start(self, job: Job) -> None:
        """Give a job to a free worker."""

    @abstractmethod
    def wait(self, hear: Hear, seconds: float) -> None:
        """Pass on what happened; wait for it for some seconds if nothing did."""

    @abstractmethod
    def close(self) -> None:
        """Leave at once: what is under way is dropped."""


class Inline(Workers):
    """One worker, in this process.

    Args:
        task: what to train.
        devices: the number of devices that train a trial together.
        interrupted: whether the trial under way is to be dropped.
    """

    def __init__(self, task: Task, devices: int, interrupted: Callable[[], bool]) -> None:
        self.ranks, self.interrupted = Ranks(task, devices), interrupted
        self._job: Job | None = None

    @property
    def free(self) -> int:
        return int(self._job is None)

    def start(self, job: Job) -> None:
        self._job = job

    def wait(self, hear: Hear, seconds: float) -> None:
        """Train the trial.

        Raises:
            Interrupted: if it was dropped.
        """
        del seconds
        job, self._job = self._job, None
        if job is None:
            return

        def report(epoch: Epoch) -> bool:
            return hear(Reported(job.number, epoch))

        try:
            result = self.ranks.train(job.tricks, job.seed, report, self.interrupted, job.checkpoint)
        except RankDied as death:
            hear(Lost(job.number, str(death)))
        else:
            hear(Ended(job.number, result, lambda: result.weights))

    def close(self) -> None:
        self.ranks.close()
