"""The group size: how many trainings run as one program, measured or set by the user."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Literal, Self

from pydantic import PositiveInt

from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.data.tensor_loader import Split
from lightning_tricks.errors import InputError
from lightning_tricks.task.task import Task

MOST = 64
"""Largest group size tried: more would gain little."""
ALL = 10**9
"""More trainings than any study has."""
BATCHES = 8
"""Batches per epoch in a measurement."""

Fuse = int | Literal["auto", "off"]
Measure = Callable[[int], tuple[float, str]]
"""Trains groups of a size; returns the seconds per training, and why they could not be grouped."""


@dataclass(frozen=True)
class GroupSize:
    """The best group size known so far.

    The worker tries larger groups only when enough trials wait, so a short study spends little on it.
    """

    best: PositiveInt = 1
    """Fastest group size tried."""
    final: bool = False
    """Whether larger groups need not be tried."""
    why: str = "larger groups are not faster"
    """Why it is not larger."""
    seconds: float | None = None
    """Seconds per training; None if not measured."""
    unfit: bool = False
    """Whether grouping failed."""
    automatic: bool = True
    """Whether to measure the best group size and number of threads; false if the user set the size."""

    @classmethod
    def of(cls, fuse: Fuse) -> Self:
        """Return the group size that the user asked for: a number, `off` for 1, or `auto` to measure it.

        Raises:
            InputError: if it is none of these.
        """
        if fuse == "auto":
            return cls()
        best: object = 1 if fuse == "off" else fuse
        if not (isinstance(best, Integral) and 1 <= int(best) <= ALL):
            raise InputError(f"fuse must be auto, off or a whole number from 1 to 10⁹ (got {fuse!r})")
        return cls(int(best), final=True, automatic=False)

    @property
    def alone(self) -> bool:
        """Whether trainings should run one by one."""
        return self.final and self.best == 1

    def refused(self, why: str) -> Self:
        """Return a final group size of 1, with the reason."""
        return replace(self, best=1, final=True, why=why)

    def grown(self, wanted: int, measure: Measure) -> Self:
        """Return the group size after doubling it while each training gets faster.

        Args:
            wanted: number of trainings to do.
            measure: trains groups of a size.
        """
        found = self
        while not found.final and found.best < min(wanted, MOST):
            found = found._doubled(measure)
        return found

    def _doubled(self, measure: Measure) -> Self:
        """Try twice the size; repeat a slow measurement, which other programs may have disturbed."""
        seconds = self.seconds or min(measure(self.best)[0] for _ in range(2))
        each, why = measure(2 * self.best)
        if not why and each > seconds:
            each = min(each, measure(2 * self.best)[0])
        if why or each > seconds:
            return replace(self, final=True, why=why or self.why, seconds=seconds, unfit=bool(why))
        return replace(self, best=2 * self.best, seconds=each)


EVERYTHING = GroupSize(ALL, final=True, automatic=False)
"""One group of all trainings."""


def short(task: Task) -> Task:
    """Return the task with only a few batches, for measurements."""
    data = task.data
    assert isinstance(data, InMemoryData)
    some = copy.copy(data)
    size = BATCHES * data.batch_size
    some.splits = {name: Split(*(part[:size] for part in split)) for name, split in data.splits.items()}
    return replace(task, data=some, epochs=2, repeats=1, own_splits=False)
