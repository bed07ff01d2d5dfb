"""Workers as Ray actors: on the devices of this machine, or of a cluster.

Ray places them, shows each its own devices, and notices when one dies; a new one takes its place. An
actor streams what happens in its trial; a stop goes back as a call on its second thread. Ray's driver is
a process of its own, `ray_host`, for it does not outlive the death of Ray's own processes.
"""

import contextlib
import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any, cast

import cloudpickle
import joblib
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from lightning_tricks.errors import InputError, Unfinished, in_a_line
from lightning_tricks.ranks import RankDied, Ranks, pickled
from lightning_tricks.task import Task
from lightning_tricks.trial import Epoch, Result
from lightning_tricks.workers import Ended, Hear, Job, Lost, Reported, Workers

TRIALS_PER_WORKER = 200
"""After so many trials a worker makes room for a new one, for memory leaks."""
BEAT_SECONDS = 2.0
"""How often a worker tells that its trial advances, between epochs."""
FAILED_STARTS = 3
"""So many workers that could not start, and none that could: there is no sense in another."""
OPEN_SECONDS = 180.0
"""Ray has so long to start, or to answer."""
CLOSE_SECONDS = 10.0
"""Ray's driver has so long to end by itself."""
_HOST = Path(__file__).with_name("ray_host.py")
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
# Ray binds to the loopback interface alone where it expects no cluster.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
ANSWER_SECONDS = 5.0
"""A cluster that does not answer by then is taken for none."""
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = bytes([4])
"""The type of the frame that an HTTP/2 server begins with."""


class Trainer:
    """What an actor trains with.

    Args:
        work: the pickled task.
        devices: the number of devices that train a trial together.
        neighbours: the workers that share the cores of this machine.
        threads: for each worker, if the user says so; by default its share of the cores.
    """

    def __init__(self, work: bytes, devices: int, neighbours: int, threads: str | None) -> None:
        self.ranks = Ranks(cloudpickle.loads(work), devices)
        cores = joblib.cpu_count(only_physical_cores=True)
        self.threads = int(threads) if threads else max(cores // neighbours, 1)
        self.stopped: set[int] = set()
        self.advanced = False

    def stop(self, number: int) -> None:
        """Stop a trial at the end of its epoch."""
        self.stopped.add(number)

    def train(self, pickled_job: bytes) -> Iterator[tuple[str, Any]]:
        """Train a trial; tell its epochs, its result without weights, and then its weights."""
        job: Job = cloudpickle.loads(pickled_job)
        inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._train, args=(job, inbox.put), daemon=True).start()
        while True:
            try:
                item = inbox.get(timeout=BEAT_SECONDS)
            except queue.Empty:
                if self.advanced:
                    self.advanced = False
                    yield "alive", None
                continue
            if isinstance(item, Result):
                yield "result", cloudpickle.dumps(replace(item, weights={}))
                yield cloudpickle.dumps(tree_map_only(Tensor, Tensor.cpu, dict(item.weights)))
                return
            if isinstance(item, Lost):
                yield "lost", item.reason
                return
            yield "epoch", cloudpickle.dumps(item)

    def _train(self, job: Job, put: Callable[[Any], None]) -> None:
        torch.set_num_threads(self.threads)  # it holds for the thread that sets it

        def report(epoch: Epoch) -> bool:
            put(epoch)
            return job.number in self.stopped

        def interrupted() -> bool:
            self.advanced = True
            return False

        try:
            put(self.ranks.train(job.tricks, job.seed, report, interrupted, job.checkpoint))
        except RankDied as death:
            put(Lost(job.number, str(death)))
        except BaseException as error:  # else the actor would wait for ever
            put(Lost(job.number, f"{type(error).__name__}: {in_a_line(error)}"))


@dataclass(eq=False)
class _Slot:
    """The place of one worker, whichever actor holds it."""

    index: int
    ready: bool = False
    """Whether an actor is there that takes jobs."""
    job: Job | None = None
    heard: float = 0.0
    """When there was a sign of life."""
    trained: int = 0


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
        return sum(slot.ready and slot.job is None for slot in self._slots)

    def start(self, job: Job) -> None:
        slot = next(slot for slot in self._slots if slot.ready and slot.job is None)
        slot.job, slot.heard = job, time.monotonic()
        self._ask(slot, "train", cloudpickle.dumps(job))

    def wait(self, hear: Hear, seconds: float) -> None:
        """Pass on what happened.

        Raises:
            Unfinished: if Ray died and cannot be had again.
        """
        away = time.monotonic() - self._listened > self.stall_seconds / 2
        try:
            self._receive(seconds)
        except (EOFError, OSError):
            self._reopen(hear)
            return
        self._listened = time.monotonic()
        while self._inbox:
            self._take(*self._inbox.popleft(), hear)
        for slot in self._slots:
            if away:  # the coordinator waited for a database, say: what they said may wait here
                slot.heard = time.monotonic()
            if slot.job is not None and time.monotonic() - slot.heard > self.stall_seconds:
                self._dismiss(slot, "kill")
                minutes = self.stall_seconds / 60
                self._lose(slot, hear, f"it gave no sign of life for {minutes:g} minutes")

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
            self._connection.send((self.address or _running(), processors))
            if self._connection.poll(OPEN_SECONDS):
                _, word, content = self._connection.recv()
        except (EOFError, OSError):
            word, content = "refused", "its process ended"
        if word == "refused":
            raise _refusal(self.address, content)
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

    def _take(self, index: int, word: str, content: Any, hear: Hear) -> None:
        """Take what a worker has to say."""
        slot = self._slots[index]
        slot.heard = time.monotonic()
        if word == "ready":
            slot.ready, self._starts, self._vain = True, -1, 0
        elif word == "died":
            self._count_start(slot, content)
            self._dismiss(slot)
            self._lose(slot, hear, in_a_line(RuntimeError(content)))
        elif slot.job is None:
            return  # it was given up meanwhile
        elif word == "lost":
            self._lose(slot, hear, content)
        elif word == "result":
            self._end(slot, cloudpickle.loads(content), hear)
        elif word == "epoch" and hear(Reported(slot.job.number, cloudpickle.loads(content))):
            self._ask(slot, "stop", slot.job.number)

    def _end(self, slot: _Slot, result: Result, hear: Hear) -> None:
        job, slot.job = slot.job, None
        assert job is not None
        slot.trained += 1
        hear(Ended(job.number, result, lambda: self._weights(slot)))
        failed_on_gpu = result.state == "failed" and self._on_gpu  # an error may stick to CUDA
        if slot.trained >= TRIALS_PER_WORKER or failed_on_gpu:
            self._dismiss(slot, "renew")

    def _weights(self, slot: _Slot) -> Mapping[str, Tensor]:
        self._ask(slot, "weights")
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
                f"workers cannot start: {in_a_line(RuntimeError(why))}; --workers inline does without "
                "them"
            )

    def _dismiss(self, slot: _Slot, word: str = "") -> None:
        """Give a worker no job until a new one has taken its place."""
        slot.ready, slot.trained = False, 0
        if word:
            self._ask(slot, word)

    def _lose(self, slot: _Slot, hear: Hear, why: str) -> None:
        job, slot.job = slot.job, None
        if job is not None:
            hear(Lost(job.number, why))

    def _reopen(self, hear: Hear) -> None:
        """Have Ray anew after it died."""
        self.close()
        self._inbox.clear()
        under_way = [slot.job for slot in self._slots if slot.job is not None]
        self._vain += 1
        if self._vain > FAILED_STARTS:
            raise Unfinished("Ray dies before a worker can start: run the same command to go on")
        self.warn("Ray died: it is started anew")
        try:
            self._open()
        except InputError as error:
            raise Unfinished(f"Ray died, and {error}; then run the same command to go on") from None
        for job in under_way:
            hear(Lost(job.number, "Ray died"))


def _running() -> str | None:
    """Return the address of Ray if it runs in this process already, and is to be shared."""
    ray = sys.modules.get("ray")
    return ray.get_runtime_context().gcs_address if ray and ray.is_initialized() else None


def _refusal(address: str | None, why: str) -> InputError:
    line = in_a_line(RuntimeError(why))
    if address is None:
        return InputError(f"Ray cannot be started: {line}; use --workers inline")
    return InputError(
        f"no Ray cluster answers: {line} (got --ray-address {address}); start one with "
        "`ray start --head`"
    )


def check_cluster(address: str) -> None:
    """Look whether a Ray cluster answers.

    Raises:
        InputError: if none does, at once or after a few seconds.
    """
    if address != "auto":
        _knock(address)


def _knock(address: str) -> None:
    """Refuse an address at which Ray would wait for most of a minute, writing of it in its own way.

    A gRPC server greets whoever greets it in HTTP/2 with the frame of its settings. With TLS it does not
    without a certificate, so there it is enough that a connection is taken.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port):
        raise InputError(f"a Ray address must be HOST:PORT or auto (got --ray-address {address})")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS) as connection:
            connection.sendall(_GREETING)
            if os.environ.get("RAY_USE_TLS", "0") == "0" and connection.recv(9)[3:4] != _SETTINGS:
                raise OSError("what answers there is no Ray")
    except (OSError, OverflowError) as error:
        raise _refusal(address, str(error)) from None


def _paths() -> list[str]:
    return [str(Path(path).absolute()) for path in sys.path]
