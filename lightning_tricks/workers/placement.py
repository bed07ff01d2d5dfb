"""How many workers a study has, and where they run."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Literal

import joblib
import torch

from lightning_tricks.errors import InputError
from lightning_tricks.task.task import Task
from lightning_tricks.training.group_size import GroupSize
from lightning_tricks.workers.base import Workers
from lightning_tricks.workers.inline import Inline

WORTH_SECONDS = 60.0
"""Minimum seconds of work per worker: starting one takes 10 to 30 processor seconds."""
MOST_WORKERS = 1000
"""Maximum number of workers. This many were tested; Ray hangs with very many more."""
MOST_DEVICES = 1000
Make = Callable[[Task], Workers]
"""Makes workers for a task; called for the search, and again for each stage after it."""


@dataclass(frozen=True)
class Placement:
    """Where trials run.

    Args:
        workers: `inline` for this process; a number; `auto` for one worker per device. Without a GPU,
            `auto` starts in this process and moves to several workers if enough work is left. Or a
            function that makes your own workers for a task.
        devices: devices per trial: a fraction shares one device; two or more train a trial together.
        ray_address: address of a running Ray cluster, `HOST:PORT` or `auto`; None for this machine.
        stall_minutes: silent minutes after which a worker is killed.
        group_size: the group size that the user asked for.

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
        if not isinstance(self.stall_minutes, Real) or not self.stall_minutes > 0:
            raise InputError(f"stall_minutes must be greater than 0 (got {self.stall_minutes!r})")

    @property
    def processes(self) -> int:
        """Number of processes that train a trial together."""
        return math.ceil(self.devices)

    def check(self) -> None:
        """Check that the Ray cluster answers, if there is an address.

        Raises:
            InputError: if it does not answer soon.
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
        """Return the workers that a study starts with."""
        if callable(self.workers):
            return self.workers(task)
        if self.workers == "inline" or self._grows(task):
            return Inline(task, self.processes, interrupted)
        return self._on_ray(task, None if self.workers == "auto" else int(self.workers), warn)

    def worthwhile(self, task: Task, trials: int, seconds: float) -> int:
        """Return the number of workers worth starting under `auto`; 1 to stay in this process.

        Args:
            task: the task.
            trials: number of trials left.
            seconds: their time in this process.
        """
        if not self._grows(task):
            return 1
        places: int = joblib.cpu_count(only_physical_cores=True) // self.processes
        return max(min(places, trials, int(seconds / WORTH_SECONDS)), 1)

    def create_several(
        self, task: Task, count: int, warn: Callable[[str], None] = lambda line: None
    ) -> Workers:
        """Return several workers, to use instead of this process."""
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
