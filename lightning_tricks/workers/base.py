"""The interface of workers, which train trials; `inline` and `ray_workers` implement it.

Workers take jobs and return events. They know neither Optuna nor MLflow, and never wait for them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_tricks.training.group_size import GroupSize
from lightning_tricks.trial.job import Job
from lightning_tricks.trial.result import Epoch, Result


@dataclass(frozen=True)
class Reported:
    """A trial finished an epoch."""

    number: int
    epoch: Epoch


@dataclass(frozen=True)
class Ended:
    """A trial ended."""

    number: int
    result: Result
    """The result, without weights."""
    weights: Callable[[], Mapping[str, Tensor]]
    """Fetches the weights; most trials' weights are not needed."""


@dataclass(frozen=True)
class Lost:
    """A trial's worker died, or hung and was killed."""

    number: int
    reason: str
    by_itself: bool = True
    """Whether the trial may be the cause; it is not if Ray itself died."""


@dataclass(frozen=True)
class Measured:
    """A worker measured the best group size."""

    group_size: GroupSize


Event = Reported | Ended | Lost | Measured
Callback = Callable[[Event], bool]
"""Takes an event; returns whether its trial must stop."""


class Workers(ABC):
    """Several workers; each trains one trial, or one group of trials, at a time."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of workers."""

    @property
    @abstractmethod
    def free(self) -> int:
        """Number of workers that wait for a job."""

    @abstractmethod
    def submit(self, jobs: Sequence[Job], group_size: GroupSize) -> None:
        """Give jobs to a free worker, which trains them in groups if possible.

        Args:
            jobs: trials whose networks probably have the same structure.
            group_size: the group size known so far.
        """

    @abstractmethod
    def wait(self, callback: Callback, seconds: float) -> None:
        """Pass events to the callback; wait up to `seconds` for the first."""

    @abstractmethod
    def close(self) -> None:
        """End the workers at once, and drop running trials."""
