"""With how many threads a worker trains best: small networks wait for them more than they gain."""

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
"""Of how many steps a measurement is."""
TIMES = 3
"""How often each number of threads is tried: other programs come and go."""
WORTH_SECONDS, MOST_SECONDS = 0.1, 3.0
"""A step that takes longer is worth all threads; a measurement that does, with its data, is not made."""


class _Clock(pl.Callback):
    """Notes when each step ends; the one that is given, and no copy of it."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Clock":
        return self

    def on_train_batch_end(self, *unused: Any, **named: Any) -> None:
        del unused, named
        self.ends.append(time.perf_counter())

    def step(self) -> float:
        """Return the seconds that a step took, in the mean; infinity if there were too few."""
        steps = len(self.ends) - 1
        return (self.ends[-1] - self.ends[0]) / steps if steps > 0 else float("inf")


def best_threads(task: Task) -> int:
    """Return with how many threads a step takes least, one or all that torch has, by trying both.

    On a busy machine torch's threads wait for each other: a step of a small network takes ten times as
    long with two of them as with one.
    """
    count = torch.get_num_threads()
    if count == 1 or "OMP_NUM_THREADS" in os.environ:  # which the user said
        return count
    try:
        if device_of(task).type != "cpu":
            return count
        start = time.perf_counter()
        first = _step(task)  # which loads and compiles what is needed once
        if first > WORTH_SECONDS or time.perf_counter() - start > MOST_SECONDS:
            return count
        seconds = {count: 0.0, 1: 0.0}  # in the mean: on a busy machine the slow steps are what counts
        for threads in TIMES * list(seconds):
            torch.set_num_threads(threads)
            seconds[threads] += _step(task)
    except Exception:  # no data, or no such device: the trial tells
        return count
    finally:
        torch.set_num_threads(count)
    return min(seconds, key=lambda threads: seconds[threads])


def _step(task: Task) -> float:
    """Return the seconds that a step of a task takes."""
    clock = _Clock()
    few = {"limit_train_batches": STEPS, "limit_val_batches": 1}
    short = replace(task, trainer={**task.trainer, **few}, epochs=1, repeats=1, callbacks=(clock,))
    fit(Training(short, task.reference(), seed=0))
    return clock.step()
