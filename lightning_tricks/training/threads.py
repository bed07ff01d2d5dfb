"""The best number of threads for a worker: for small networks, threads cost more than they gain."""

import os
import time
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch

from lightning_tricks.task.task import Task
from lightning_tricks.training.refusals import device_of
from lightning_tricks.trial.fit import fit
from lightning_tricks.trial.training import Training

STEPS = 8
"""Steps per measurement."""
TIMES = 3
"""Measurements per number of threads, because other programs come and go."""
WORTH_SECONDS, MOST_SECONDS = 0.1, 3.0
"""Seconds per step above which all threads are used; seconds of the first measurement, with its data,
above which no further ones are made."""


class _Clock(pl.Callback):
    """Notes when each step ends; a deep copy is the object itself."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Clock":
        return self

    def on_train_batch_end(self, *unused: Any, **named: Any) -> None:
        del unused, named
        self.ends.append(time.perf_counter())

    def step(self) -> float:
        """Return the mean seconds per step; infinity if there were too few steps."""
        steps = len(self.ends) - 1
        return (self.ends[-1] - self.ends[0]) / steps if steps > 0 else float("inf")


def best_threads(task: Task) -> int:
    """Return the faster number of threads: one, or all that torch has. Both are measured.

    On a busy machine torch's threads wait for each other: a step of a small network takes ten times as
    long with two threads as with one.
    """
    count = torch.get_num_threads()
    if count == 1 or "OMP_NUM_THREADS" in os.environ:  # the user has set it
        return count
    try:
        if device_of(task).type != "cpu":
            return count
        start = time.perf_counter()
        first = _step(task)  # includes loading and compiling
        if first > WORTH_SECONDS or time.perf_counter() - start > MOST_SECONDS:
            return count
        seconds = {count: 0.0, 1: 0.0}  # sums, not minima: on a busy machine the slow steps matter
        for threads in TIMES * list(seconds):
            torch.set_num_threads(threads)
            seconds[threads] += _step(task)
    except Exception:  # no data, or no such device: the trial itself reports it
        return count
    finally:
        torch.set_num_threads(count)
    return min(seconds, key=lambda threads: seconds[threads])


def _step(task: Task) -> float:
    """Return the seconds per step of a task."""
    clock = _Clock()
    few = {"limit_train_batches": STEPS, "limit_val_batches": 1}
    short = replace(task, trainer={**task.trainer, **few}, epochs=1, repeats=1, callbacks=(clock,))
    fit(Training(short, task.reference(), seed=0))
    return clock.step()
