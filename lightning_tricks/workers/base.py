"""Where trials run: one interface, of which `inline` and `ray_workers` are implementations.

Jobs go out, events come back. Workers know neither Optuna nor MLflow, and never wait for either.
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
    """Without weights."""
    weights: Callable[[], Mapping[str, Tensor]]
    """Fetches the weights: most trials' are not wanted."""


@dataclass(frozen=True)
class Lost:
    """A trial's worker died, or hangs and was killed."""

    number: int
    reason: str
    by_itself: bool = True
    """Whether the trial may be the cause; Ray's own death is no trial's fault."""


@dataclass(frozen=True)
class Measured:
    """A worker found out how many trainings are worth being done as one."""

    group_size: GroupSize


Event = Reported | Ended | Lost | Measured
Callback = Callable[[Event], bool]
"""Takes an event; returns whether its trial, if it is of one, is to stop."""


class Workers(ABC):
    """Some workers, each of which trains one trial at a time, or a group of them."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many workers there are."""

    @property
    @abstractmethod
    def free(self) -> int:
        """How many workers wait for a job."""

    @abstractmethod
    def submit(self, jobs: Sequence[Job], group_size: GroupSize) -> None:
        """Give jobs to a free worker, which trains them in groups where it can.

        Args:
            jobs: with networks of one structure as far as one knows.
            group_size: what is known of how many trainings are worth being done as one.
        """

    @abstractmethod
    def wait(self, callback: Callback, seconds: float) -> None:
        """Pass on what happened; wait for it for some seconds if nothing did."""

    @abstractmethod
    def close(self) -> None:
        """Leave at once: what is under way is dropped."""
