"""How many workers a study has, and where."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral
from typing import Literal

import joblib
import torch

from lightning_tricks.errors import InputError
from lightning_tricks.task.task import Task
from lightning_tricks.training.group_size import GroupSize
from lightning_tricks.workers.base import Workers
from lightning_tricks.workers.inline import Inline

WORTH_SECONDS = 60.0
"""A worker must have so much work before it: to start it takes 10 to 30 seconds of a processor."""
MOST_WORKERS = 1000
"""So many were tried; Ray would hang over very many more."""
MOST_DEVICES = 1000
Make = Callable[[Task], Workers]
"""Makes workers for a task: of the search, and again of what follows it."""


@dataclass(frozen=True)
class Placement:
    """Where trials run.

    Args:
        workers: `inline` for this process; a number; `auto` for one a device. Without a GPU, `auto`
            begins in this process and moves to several once the work that is left is worth it. Or a
            function that makes workers of one's own for a task.
        devices: for each trial: a fraction shares one, and two or more train a trial together.
        ray_address: of a Ray cluster that runs, `HOST:PORT` or `auto`; None for this machine.
        stall_minutes: a worker that gives no sign of life for so long is killed.
        group_size: what the user says of how many trainings a worker does at a time.

    Raises:
        InputError: if a value breaks these rules.
    """

    workers: int | Literal["auto", "inline"] | Make = "auto"
    devices: float = 1
    ray_address: str | None = None
    stall_minutes: float = 30
    group_size: GroupSize = field(default_factory=GroupSize)

    def __post_init__(self) -> None:
        count = isinstance(self.workers, Integral) and 1 <= self.workers <= MOST_WORKERS
        if not (count or callable(self.workers) or self.workers in ("auto", "inline")):
            raise InputError(
                f"workers must be auto, inline or a number from 1 to {MOST_WORKERS} "
                f"(got {self.workers!r})"
            )
        if not (0 < self.devices <= 1 or (self.devices in range(2, MOST_DEVICES + 1))):
            raise InputError(
                "devices_per_trial must be a whole number, or a fraction of one device, and at most "
                f"{MOST_DEVICES} (got {self.devices:g})"
            )
        if self.workers == "inline" and self.ray_address is not None:
            raise InputError("a Ray cluster cannot be used with workers inline: leave one of them out")
        if not self.stall_minutes > 0:
            raise InputError(f"stall_minutes must be greater than 0 (got {self.stall_minutes!r})")

    @property
    def processes(self) -> int:
        """How many train a trial together."""
        return math.ceil(self.devices)

    def check(self) -> None:
        """Look whether the Ray cluster answers, if one is to be used.

        Raises:
            InputError: if none does, soon.
        """
        if self.ray_address is not None:
            from lightning_tricks.workers.ray_address import check_cluster  # noqa: PLC0415 - as below

            check_cluster(self.ray_address)

    def create(
        self,
        task: Task,
        interrupted: Callable[[], bool],
        warn: Callable[[str], None] = lambda line: None,
    ) -> Workers:
        """Return the workers that a study begins with."""
        if callable(self.workers):
            return self.workers(task)
        if self.workers == "inline" or self._grows(task):
            return Inline(task, self.processes, interrupted)
        return self._on_ray(task, None if self.workers == "auto" else int(self.workers), warn)

    def worthwhile(self, task: Task, trials: int, seconds: float) -> int:
        """Return how many workers `auto` would have now; 1 if it stays in this process.

        Args:
            task: what is trained.
            trials: that are left.
            seconds: that they take in this process.
        """
        if not self._grows(task):
            return 1
        places: int = joblib.cpu_count(only_physical_cores=True) // self.processes
        return max(min(places, trials, int(seconds / WORTH_SECONDS)), 1)

    def create_several(
        self, task: Task, count: int, warn: Callable[[str], None] = lambda line: None
    ) -> Workers:
        """Return several workers in place of this process."""
        return self._on_ray(task, count, warn)

    def _grows(self, task: Task) -> bool:
        on_cpu = task.trainer.get("accelerator") == "cpu" or not torch.cuda.is_available()
        return self.workers == "auto" and self.ray_address is None and on_cpu

    def _on_ray(self, task: Task, count: int | None, warn: Callable[[str], None]) -> Workers:
        from lightning_tricks.workers.ray_workers import RayWorkers  # noqa: PLC0415

        return RayWorkers(
            task,
            count=count,
            devices=self.devices,
            address=self.ray_address,
            stall_seconds=60 * self.stall_minutes,
            warn=warn,
        )
