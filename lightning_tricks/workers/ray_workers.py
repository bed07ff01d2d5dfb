"""Workers as Ray actors: on the devices of this machine, or of a cluster.

Ray places the actors, gives each its devices, and notices when one dies; a new one then takes its place.
An actor streams its trial's events. A stop reaches it as a call on its second thread. Ray's driver has
its own process (`ray_process.py`), because Ray's death would kill it.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import joblib
import torch

from lightning_tricks.errors import InputError, Unfinished, one_line
from lightning_tricks.task.task import Task
from lightning_tricks.training.group_size import GroupSize
from lightning_tricks.training.ranks import pickled
from lightning_tricks.trial.job import Job
from lightning_tricks.trial.result import Result
from lightning_tricks.workers.base import Callback, Ended, Lost, Measured, Reported, Workers
from lightning_tricks.workers.ray_process import Message, RayProcess, paths

TRIALS_PER_WORKER = 200
"""Number of trials after which a worker is replaced, because of memory leaks."""
FAILED_STARTS = 3
"""Number of failed starts, without a successful one, after which we give up."""


@dataclass(eq=False)
class _Slot:
    """One worker's slot, which a new actor may take over."""

    index: int
    ready: bool = False
    """Whether an actor is ready for jobs."""
    jobs: dict[int, Job] = field(default_factory=dict)
    """Running jobs, by number."""
    busy: bool = False
    last_sign: float = 0.0
    """Time of the last sign of life, in seconds of `time.monotonic`."""
    trained: int = 0
    spoiled: bool = False
    """Whether a trial failed and may have left the device in a bad state."""


class RayWorkers(Workers):
    """Workers on this machine or on a cluster.

    Args:
        task: what to train; workers import it or get it by value.
        count: number of workers; None for as many as fit on the GPUs or, without any, the processors.
        devices: devices per trial; with a fraction, trials share a device.
        address: address of a running cluster; None starts Ray on this machine for this study only.
        stall_seconds: silent seconds after which a worker is killed.
        warn: prints a line when Ray died and is started again.

    Raises:
        InputError: if the task cannot be pickled, or the cluster does not answer or has too few devices.
    """

    def __init__(
        self,
        task: Task,
        *,
        count: int | None,
        devices: float,
        address: str | None,
        stall_seconds: float,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.stall_seconds, self.address, self.warn = stall_seconds, address, warn
        self.wanted, self.devices = count, devices
        self._work = pickled(task)
        self._on_cpu = task.trainer.get("accelerator") == "cpu"
        self._processes = max(int(devices), 1)
        self._starts = 0
        """Number of failed starts of workers; -1 once one succeeded."""
        self._vain = 0
        """Number of Ray's deaths since a worker was last ready."""
        self._inbox: deque[Message] = deque()
        self._listened = time.monotonic()
        self._open()

    @property
    def free(self) -> int:
        return sum(slot.ready and not slot.busy for slot in self._slots)

    @property
    def count(self) -> int:
        return len(self._slots)

    def submit(self, jobs: Sequence[Job], group_size: GroupSize) -> None:
        slot = next(slot for slot in self._slots if slot.ready and not slot.busy)
        slot.jobs, slot.busy = {job.number: job for job in jobs}, True
        slot.last_sign = time.monotonic()
        self._ray.send(slot.index, "train", cloudpickle.dumps((list(jobs), group_size)))

    def wait(self, callback: Callback, seconds: float) -> None:
        """Pass events to the callback.

        Raises:
            Unfinished: if Ray died and cannot be started again.
        """
        away = time.monotonic() - self._listened > self.stall_seconds / 2
        try:
            self._receive(seconds)
        except (EOFError, OSError):
            self._reopen(callback)
            return
        self._listened = time.monotonic()
        while self._inbox:
            self._take(*self._inbox.popleft(), callback)
        for slot in self._slots:
            if away:  # the coordinator itself was busy, for example with a database outage
                slot.last_sign = time.monotonic()
            if slot.busy and time.monotonic() - slot.last_sign > self.stall_seconds:
                self._dismiss(slot, "kill")
                minutes = f"{self.stall_seconds / 60:g} minutes"
                self._lose(slot, callback, f"it gave no sign of life for {minutes}")

    def close(self) -> None:
        self._ray.close()

    def _open(self) -> None:
        """Start Ray's driver and, with it, the workers."""
        self._ray = RayProcess(self.address)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        gpus = 0 if self._on_cpu or self.address else torch.cuda.device_count()
        room = gpus / self.devices or joblib.cpu_count(only_physical_cores=True) // self._processes
        processors = max(self.wanted or 1, int(room)) * self._processes
        held, nodes = self._ray.resources(processors)
        count, resources = self._fit(held)
        arguments = (self._work, self._processes, -(-count // nodes), os.environ.get("OMP_NUM_THREADS"))
        self._slots = [_Slot(index) for index in range(count)]
        self._ray.send(count, resources, (paths(), *arguments))

    def _fit(self, held: Mapping[str, float]) -> tuple[int, dict[str, float]]:
        """Return the number of workers, and the resources of each."""
        gpus = 0 if self._on_cpu else int(held.get("GPU", 0))
        processors = int(held.get("CPU", 1))
        room = int(gpus / self.devices + 1e-9) if gpus else processors // self._processes
        count = room if self.wanted is None else self.wanted
        if not 1 <= count <= room:
            raise InputError(
                f"{count or 'no'} workers of {self.devices:g} devices each do not fit on "
                f"{gpus or processors} {'GPUs' if gpus else 'processors'}: ask for "
                f"at most {room}, or for a smaller --devices-per-trial"
            )
        self._on_gpu = bool(gpus)
        each = min(1 if gpus else self._processes, held.get("CPU", 1) / count)
        return count, {"num_cpus": each, **({"num_gpus": self.devices} if gpus else {})}

    def _receive(self, seconds: float) -> None:
        """Move received messages to the inbox; wait up to `seconds` for the first."""
        if self._inbox or not self._ray.waits(seconds):
            return
        for _ in self._slots:
            self._inbox.append(self._ray.receive())
            if not self._ray.waits(0):
                return

    def _take(self, index: int, word: str, content: Any, callback: Callback) -> None:
        """Handle a worker's message."""
        slot = self._slots[index]
        slot.last_sign = time.monotonic()
        if word == "ready":
            slot.ready, self._starts, self._vain = True, -1, 0
        elif word == "died":
            self._count_start(slot, content)
            self._dismiss(slot)
            self._lose(slot, callback, one_line(RuntimeError(content)))
        elif word == "done":
            slot.busy = False
            if slot.trained >= TRIALS_PER_WORKER or slot.spoiled:
                self._dismiss(slot, "renew")
        elif content is not None and content[0] in slot.jobs:  # else the trial was given up
            self._hear(slot, word, content[0], content[1], callback)

    def _hear(self, slot: _Slot, word: str, number: int, content: Any, callback: Callback) -> None:
        """Handle a worker's message about a trial."""
        if word == "lost":
            del slot.jobs[number]
            callback(Lost(number, content))
        elif word == "result":
            result: Result = cloudpickle.loads(content)
            del slot.jobs[number]
            slot.trained += 1
            slot.spoiled |= result.state == "failed" and self._on_gpu  # an error may stick to CUDA
            callback(Ended(number, result, lambda: self._weights(slot, number)))
        elif word == "group_size":
            callback(Measured(cloudpickle.loads(content)))
        elif word == "epoch" and callback(Reported(number, cloudpickle.loads(content))):
            self._ray.send(slot.index, "stop", number)

    def _weights(self, slot: _Slot, number: int) -> Any:
        self._ray.send(slot.index, "weights", number)
        while True:
            index, word, content = self._ray.receive()
            if index == slot.index and word == "weights":
                return cloudpickle.loads(content)
            if index == slot.index and word == "no weights":
                raise RuntimeError(content)
            self._inbox.append((index, word, content))

    def _count_start(self, slot: _Slot, why: str) -> None:
        """Count a failed start; raise if no worker can start."""
        self._starts += not slot.ready and self._starts >= 0
        if self._starts >= FAILED_STARTS:
            raise InputError(
                f"workers cannot start: {one_line(RuntimeError(why))}; use --workers inline"
            )

    def _dismiss(self, slot: _Slot, word: str = "") -> None:
        """Give a worker no more jobs until a new actor has replaced it."""
        slot.ready, slot.trained, slot.spoiled = False, 0, False
        if word:
            self._ray.send(slot.index, word, None)

    def _lose(self, slot: _Slot, callback: Callback, why: str) -> None:
        jobs, slot.jobs, slot.busy = slot.jobs, {}, False
        for number in jobs:
            callback(Lost(number, why))

    def _reopen(self, callback: Callback) -> None:
        """Start Ray again after it died."""
        self.close()
        self._inbox.clear()
        under_way = [job for slot in self._slots for job in slot.jobs.values()]
        self._vain += 1
        if self._vain > FAILED_STARTS:
            raise Unfinished("Ray dies before a worker can start: run the same command to go on")
        self.warn("Ray died: starting it again")
        try:
            self._open()
        except InputError as error:
            raise Unfinished(f"Ray died, and {error}; then run the same command to go on") from None
        for job in under_way:
            callback(Lost(job.number, "Ray died", by_itself=False))
