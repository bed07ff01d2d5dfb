"""Workers as Ray actors: on the devices of this machine, or of a cluster.

Ray places them, shows each its own devices, and notices when one dies; a new one takes its place. An
actor streams what happens in its trial; a stop goes back as a call on its second thread. Ray's driver is
a process of its own, `ray_driver`, for it does not outlive the death of Ray's own processes.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any, cast

import cloudpickle
import joblib
import torch
from torch import Tensor

from lightning_tricks.errors import InputError, Unfinished, one_line
from lightning_tricks.task.task import Task
from lightning_tricks.training.group_size import GroupSize
from lightning_tricks.training.ranks import pickled
from lightning_tricks.trial.job import Job
from lightning_tricks.trial.result import Result
from lightning_tricks.workers.base import Callback, Ended, Lost, Measured, Reported, Workers
from lightning_tricks.workers.ray_address import refusal, running_address

TRIALS_PER_WORKER = 200
"""After so many trials a worker makes room for a new one, for memory leaks."""
FAILED_STARTS = 3
"""So many workers that could not start, and none that could: there is no sense in another."""
OPEN_SECONDS = 180.0
"""Ray has so long to start, or to answer."""
CLOSE_SECONDS = 10.0
"""Ray's driver has so long to end by itself."""
LONGEST_TEMPORARY = 40
"""A socket's path has about a hundred characters, of which Ray takes sixty below its folder."""
_HOST = Path(__file__).with_name("ray_driver.py")
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # idle threads leave the cores to the other workers
}
# Ray binds to the loopback interface alone where it expects no cluster.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass(eq=False)
class _Slot:
    """The place of one worker, whichever actor holds it."""

    index: int
    ready: bool = False
    """Whether an actor is there that takes jobs."""
    jobs: dict[int, Job] = field(default_factory=dict)
    """Those that it trains, by number."""
    busy: bool = False
    last_sign: float = 0.0
    """When there was a sign of life."""
    trained: int = 0
    spoiled: bool = False
    """Whether a trial failed that may have left its device in disorder."""


class RayWorkers(Workers):
    """Workers on this machine or on a cluster.

    Args:
        task: what to train; it travels by import or by value.
        count: the number of workers; None for as many as there are devices, or else processors.
        devices: for each trial; a fraction of one is shared.
        address: of a cluster that runs; None starts Ray on this machine, and ends it with the study.
        stall_seconds: a worker that gives no sign of life for so long is killed.
        warn: is told, in a line, when Ray died and is started anew.

    Raises:
        InputError: if the task cannot travel, the cluster does not answer, or has fewer devices.
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
        """How many workers could not start; -1 once one could."""
        self._vain = 0
        """How often Ray died since a worker was ready."""
        self._inbox: deque[tuple[int, str, Any]] = deque()
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
        self._ask(slot, "train", cloudpickle.dumps((list(jobs), group_size)))

    def wait(self, callback: Callback, seconds: float) -> None:
        """Pass on what happened.

        Raises:
            Unfinished: if Ray died and cannot be had again.
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
            if away:  # the coordinator waited for a database, say: what they said may wait here
                slot.last_sign = time.monotonic()
            if slot.busy and time.monotonic() - slot.last_sign > self.stall_seconds:
                self._dismiss(slot, "kill")
                minutes = self.stall_seconds / 60
                self._lose(slot, callback, f"it gave no sign of life for {minutes:g} minutes")

    def close(self) -> None:
        self._connection.close()
        try:
            self._host.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._host.kill()
            self._host.wait()

    def _open(self) -> None:
        """Start Ray's driver and, with it, the workers."""
        environment = {**_ENVIRONMENT, **({} if self.address else _LOOPBACK), **os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(_paths())
        if self.address is None and len(tempfile.gettempdir()) > LONGEST_TEMPORARY:
            environment.setdefault("RAY_TMPDIR", "/tmp")
        self._connection, there = Pipe()
        with there:
            self._host = subprocess.Popen(
                [sys.executable, "-P", str(_HOST), str(there.fileno())],
                env=environment,
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # Ray tells its own death in a hundred lines
                start_new_session=True,  # Ctrl-C is for the program, which tells it
            )
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        gpus = 0 if self._on_cpu or self.address else torch.cuda.device_count()
        cores = joblib.cpu_count(only_physical_cores=True)
        room = gpus / self.devices if gpus else cores // self._processes
        word, content = "refused", cast("Any", f"nothing in {OPEN_SECONDS:g} s")
        try:
            processors = max(self.wanted or 1, int(room)) * self._processes
            self._connection.send((self.address or running_address(), processors))
            if self._connection.poll(OPEN_SECONDS):
                _, word, content = self._connection.recv()
        except (EOFError, OSError):
            word, content = "refused", "its process ended"
        if word == "refused":
            raise refusal(self.address, content)
        held, nodes = content
        count, resources = self._fit(held)
        arguments = (self._work, self._processes, -(-count // nodes), os.environ.get("OMP_NUM_THREADS"))
        self._slots = [_Slot(index) for index in range(count)]
        with contextlib.suppress(OSError):  # it died, which the next `wait` sees
            self._connection.send((count, resources, (_paths(), *arguments)))

    def _fit(self, held: Mapping[str, float]) -> tuple[int, dict[str, float]]:
        """Return how many workers there are, and what each of them holds."""
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

    def _ask(self, slot: _Slot, word: str, content: Any = None) -> None:
        with contextlib.suppress(OSError):  # it died, which the next `wait` sees
            self._connection.send((slot.index, word, content))

    def _receive(self, seconds: float) -> None:
        """Take in what there is; wait for it if there is nothing."""
        if self._inbox or not self._connection.poll(seconds):
            return
        for _ in self._slots:
            self._inbox.append(self._connection.recv())
            if not self._connection.poll(0):
                return

    def _take(self, index: int, word: str, content: Any, callback: Callback) -> None:
        """Take what a worker has to say."""
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
        elif content is not None and content[0] in slot.jobs:  # it may have been given up meanwhile
            self._hear(slot, word, content[0], content[1], callback)

    def _hear(self, slot: _Slot, word: str, number: int, content: Any, callback: Callback) -> None:
        """Take what a worker says of a trial."""
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
            self._ask(slot, "stop", number)

    def _weights(self, slot: _Slot, number: int) -> Mapping[str, Tensor]:
        self._ask(slot, "weights", number)
        while True:
            index, word, content = self._connection.recv()
            if index == slot.index and word == "weights":
                weights: Mapping[str, Tensor] = cloudpickle.loads(content)
                return weights
            if index == slot.index and word == "no weights":
                raise RuntimeError(content)
            self._inbox.append((index, word, content))

    def _count_start(self, slot: _Slot, why: str) -> None:
        """Give up if no worker can start."""
        self._starts += not slot.ready and self._starts >= 0
        if self._starts >= FAILED_STARTS:
            raise InputError(
                f"workers cannot start: {one_line(RuntimeError(why))}; --workers inline does without "
                "them"
            )

    def _dismiss(self, slot: _Slot, word: str = "") -> None:
        """Give a worker no job until a new one has taken its place."""
        slot.ready, slot.trained, slot.spoiled = False, 0, False
        if word:
            self._ask(slot, word)

    def _lose(self, slot: _Slot, callback: Callback, why: str) -> None:
        jobs, slot.jobs, slot.busy = slot.jobs, {}, False
        for number in jobs:
            callback(Lost(number, why))

    def _reopen(self, callback: Callback) -> None:
        """Have Ray anew after it died."""
        self.close()
        self._inbox.clear()
        under_way = [job for slot in self._slots for job in slot.jobs.values()]
        self._vain += 1
        if self._vain > FAILED_STARTS:
            raise Unfinished("Ray dies before a worker can start: run the same command to go on")
        self.warn("Ray died: it is started anew")
        try:
            self._open()
        except InputError as error:
            raise Unfinished(f"Ray died, and {error}; then run the same command to go on") from None
        for job in under_way:
            callback(Lost(job.number, "Ray died", by_itself=False))


def _paths() -> list[str]:
    return [str(Path(path).absolute()) for path in sys.path]
