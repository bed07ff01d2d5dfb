"""How many trainings are worth being done as one: what is measured, or what the user says."""

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
"""So many at the most are tried: by then little is left to gain."""
ALL = 10**9
"""More than anybody has."""
BATCHES = 8
"""Of how many batches an epoch of the measurement is."""

Fuse = int | Literal["auto", "off"]
Measure = Callable[[int], tuple[float, str]]
"""Trains so many at a time; returns the seconds that each took, and why they were not done as one."""


@dataclass(frozen=True)
class GroupSize:
    """What is known of how many trainings a worker does best at a time.

    Whoever trains finds out more as more are wanted, so that a short study spends little on it.
    """

    best: PositiveInt = 1
    """So many, of those that were tried."""
    final: bool = False
    """Whether more are not to be tried."""
    why: str = "more at a time are not faster"
    """Why there are no more."""
    seconds: float | None = None
    """What each took; None if nothing was measured."""
    unfit: bool = False
    """Whether they could not be done as one at all."""
    automatic: bool = True
    """Whether it is to be measured what is best, and with how many threads; else the user said it."""

    @classmethod
    def of(cls, fuse: Fuse) -> Self:
        """Return what the user says: a number, `off` for one, or `auto` for what is to be measured.

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
        """Whether it is known that trainings are best done one by one."""
        return self.final and self.best == 1

    def refused(self, why: str) -> Self:
        """Return that they cannot be done as one."""
        return replace(self, best=1, final=True, why=why)

    def grown(self, wanted: int, measure: Measure) -> Self:
        """Return what is known once so many were tried, or as many as the time for each falls with.

        Args:
            wanted: how many there are to train.
            measure: trains some.
        """
        found = self
        while not found.final and found.best < min(wanted, MOST):
            found = found._doubled(measure)
        return found

    def _doubled(self, measure: Measure) -> Self:
        """Try twice as many; what is slow at first may have been disturbed, and is tried again."""
        seconds = self.seconds or min(measure(self.best)[0] for _ in range(2))
        each, why = measure(2 * self.best)
        if not why and each > seconds:
            each = min(each, measure(2 * self.best)[0])
        if why or each > seconds:
            return replace(self, final=True, why=why or self.why, seconds=seconds, unfit=bool(why))
        return replace(self, best=2 * self.best, seconds=each)


EVERYTHING = GroupSize(ALL, final=True, automatic=False)
"""All that there are."""


def short(task: Task) -> Task:
    """Return a task with a few batches, to measure with."""
    data = task.data
    assert isinstance(data, InMemoryData)
    some = copy.copy(data)
    size = BATCHES * data.batch_size
    some.splits = {name: Split(*(part[:size] for part in split)) for name, split in data.splits.items()}
    return replace(task, data=some, epochs=2, repeats=1, own_splits=False)
