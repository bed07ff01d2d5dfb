"""How many trainings are worth being fused: what is measured, or what the user says."""

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.data.tensor_loader import Split
from lightning_tricks.errors import InputError
from lightning_tricks.fusion.fuser import Fuser, refusal
from lightning_tricks.task.task import Task
from lightning_tricks.trial.job import Job

MOST = 64
"""So many at the most are tried: by then little is left to gain."""
BATCHES = 8
"""Of how many batches an epoch of the measurement is."""
GAIN = 0.9
"""Twice as many must take less than this share of the time each, or it is not worth it."""

Fuse = int | Literal["auto", "off"]


class Width:
    """How many trainings of a task a worker does at a time.

    Args:
        fuse: a number, `off` for one, or `auto`: as many as the time for each still falls with.

    Raises:
        InputError: if it is none of these.
    """

    def __init__(self, fuse: Fuse = "auto") -> None:
        if fuse not in ("auto", "off") and not (isinstance(fuse, int) and 1 <= fuse <= 2**16):
            raise InputError(f"fuse must be auto, off or a number from 1 to {2**16} (got {fuse!r})")
        self.fuse = fuse
        self.found = None if fuse == "auto" else 1 if fuse == "off" else fuse
        """The number, once it is known."""
        self.why = "more at a time are not faster"
        """Why it is not more, once it is measured."""

    @property
    def measures(self) -> bool:
        """Whether the number is to be measured."""
        return self.fuse == "auto"

    def of(self, task: Task, devices: int = 1, interrupted: Callable[[], bool] = lambda: False) -> int:
        """Return the number; measured once, where it is to be.

        Raises:
            Interrupted: soon after `interrupted()` becomes true.
        """
        if self.found is None:
            why = refusal(task, devices)
            self.found, why = (1, why) if why else _measured(task, interrupted)
            self.why = why or self.why
        return self.found


def _measured(task: Task, interrupted: Callable[[], bool]) -> tuple[int, str]:
    """Return how many trainings at a time take least time each, and why none are done as one.

    1, 2, 4, and so on are tried.
    """
    short = _short(task)
    best, seconds = 1, min(_seconds(short, 1, interrupted)[0] for _ in range(2))
    while best < MOST:
        (each, why), (again, _) = (_seconds(short, 2 * best, interrupted) for _ in range(2))
        each = min(each, again)
        if why or each > (seconds if best == 1 else GAIN * seconds):
            return best, why
        best, seconds = 2 * best, each
    return best, ""


def _short(task: Task) -> Task:
    """Return the task with a few batches."""
    data = task.data
    assert isinstance(data, InMemoryData)
    some = copy.copy(data)
    size = BATCHES * data.batch_size
    some.splits = {name: Split(*(part[:size] for part in split)) for name, split in data.splits.items()}
    return replace(task, data=some, epochs=2, repeats=1)


def _seconds(task: Task, count: int, interrupted: Callable[[], bool]) -> tuple[float, str]:
    """Return the seconds that each of some trainings takes, and why they were not done as one."""
    fuser = Fuser(task, interrupted=interrupted)
    jobs = [Job(number, task.reference(), number) for number in range(count)]
    start = time.perf_counter()
    fuser.train(jobs, lambda job, epoch: False, lambda job, result: None)
    return (time.perf_counter() - start) / count, fuser.refusal
