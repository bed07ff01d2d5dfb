"""Workers as Ray actors: on the devices of this machine, or of a cluster.

Ray places them, shows each its own devices, and notices when one dies; a new one takes its place. An
actor streams what happens in its trial; a stop goes back as a call on its second thread.
"""

import contextlib
import importlib
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import torch
from torch.utils._pytree import tree_map_only

from lightning_tricks.errors import InputError, in_a_line
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
ALIVE = "alive"


class Trainer:
    """What runs in an actor.

    Args:
        work: the pickled task.
        paths: where the study finds the modules that it imports.
        devices: the number of devices that train a trial together.
        neighbours: the workers that share the cores of this machine.
        threads: for each worker, if the user says so; by default its share of the cores.
    """

    def __init__(
        self,
        work: bytes,
        paths: list[str],
        devices: int,
        neighbours: int,
        threads: str | None,
    ) -> None:
        sys.path += [path for path in paths if path not in sys.path]
        self.ranks = Ranks(cloudpickle.loads(work), devices)
        cores = joblib.cpu_count(only_physical_cores=True)
        self.threads = int(threads) if threads else max(cores // neighbours, 1)
        self.stopped: set[int] = set()
        self.advanced = False

    def place(self) -> tuple[str, int]:
        """Return Ray's name of the node, and the process."""
        return importlib.import_module("ray").get_runtime_context().get_node_id(), os.getpid()

    def stop(self, number: int) -> None:
        """Stop a trial at the end of its epoch."""
        self.stopped.add(number)

    def train(self, job: Job) -> Iterator[Any]:
        """Train a trial; yield its epochs, its result without weights, and its weights."""
        inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._train, args=(job, inbox.put), daemon=True).start()
        while True:
            try:
                item = inbox.get(timeout=BEAT_SECONDS)
            except queue.Empty:
                if self.advanced:
                    self.advanced = False
                    yield ALIVE
                continue
            if isinstance(item, Result):
                yield replace(item, weights={})
                yield tree_map_only(torch.Tensor, torch.Tensor.cpu, dict(item.weights))
                return
            yield item
            if isinstance(item, Lost):
                return

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

    actor: Any
    ready: Any
    """A reference to the actor's place, until it has started."""
    place: tuple[str, int] = ("", 0)
    job: Job | None = None
    stream: Any = None
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
    ) -> None:
        self.stall_seconds = stall_seconds
        work = pickled(task)
        on_cpu = task.trainer.get("accelerator") == "cpu"
        gpus = 0 if on_cpu or address else torch.cuda.device_count()
        processes = max(int(devices), 1)
        room = gpus / devices if gpus else joblib.cpu_count(only_physical_cores=True) // processes
        self.ray, self._ours = _connect(address, max(count or 1, int(room)) * processes)
        try:
            held = self.ray.cluster_resources()
            gpus = 0 if on_cpu else int(held.get("GPU", 0))
            room = int(gpus / devices + 1e-9) if gpus else int(held.get("CPU", 1)) // processes
            self.count = room if count is None else count
            if not 1 <= self.count <= room:
                raise InputError(
                    f"{self.count or 'no'} workers of {devices:g} devices each do not fit on "
                    f"{gpus or int(held.get('CPU', 1))} {'GPUs' if gpus else 'processors'}: ask for "
                    f"at most {room}, or for a smaller --devices-per-trial"
                )
            self._on_gpu = bool(gpus)
            nodes = max(sum(node["Alive"] for node in self.ray.nodes()), 1)
            resources = {"num_gpus": devices, "num_cpus": 1} if gpus else {"num_cpus": processes}
            resources["num_cpus"] = min(resources["num_cpus"], held.get("CPU", 1) / self.count)
            self._make = self.ray.remote(**resources, max_concurrency=2, max_restarts=0)(Trainer).remote
            threads = os.environ.get("OMP_NUM_THREADS")
            neighbours = -(-self.count // nodes)
            self._arguments = (self.ray.put(work), _paths(), processes, neighbours, threads)
            self._failed_starts = 0
            self._slots = [self._new() for _ in range(self.count)]
        except BaseException:
            self.close()
            raise

    @property
    def free(self) -> int:
        return sum(slot.job is None and slot.ready is None for slot in self._slots)

    def start(self, job: Job) -> None:
        slot = next(slot for slot in self._slots if slot.job is None and slot.ready is None)
        slot.stream = slot.actor.train.options(num_returns="streaming").remote(job)
        slot.job, slot.heard = job, time.monotonic()

    def wait(self, hear: Hear, seconds: float) -> None:
        waited = {slot.stream if slot.ready is None else slot.ready: slot for slot in self._slots}
        waited.pop(None, None)  # those that are free
        if not waited:
            return
        ready, rest = self.ray.wait(list(waited), num_returns=1, timeout=seconds)
        if rest:
            ready += self.ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for reference in ready:
            self._take(waited[reference], hear)
        for slot in self._slots:
            quiet = slot.job is not None and time.monotonic() - slot.heard > self.stall_seconds
            # What it said may have waited here, while the coordinator waited for a database.
            if quiet and not self.ray.wait([slot.stream], timeout=0)[0]:
                minutes = self.stall_seconds / 60
                self._kill_process(slot)
                self._lose(slot, hear, f"it gave no sign of life for {minutes:g} minutes")

    def close(self) -> None:
        for slot in getattr(self, "_slots", []):
            self.ray.kill(slot.actor)
        if self._ours:
            self.ray.shutdown()

    def _take(self, slot: _Slot, hear: Hear) -> None:
        """Take what a worker has to say."""
        if slot.ready is not None:
            self._greet(slot)
            return
        job = slot.job
        if job is None:
            return
        try:
            item = self.ray.get(next(slot.stream))
            weights = next(slot.stream) if isinstance(item, Result) else None
        except (self.ray.exceptions.RayError, StopIteration) as error:
            self._lose(slot, hear, _why(error))
            return
        slot.heard = time.monotonic()
        if isinstance(item, Lost):
            slot.job = slot.stream = None
            hear(item)
        elif isinstance(item, Result):
            slot.job = slot.stream = None
            slot.trained += 1
            failed_on_gpu = item.state == "failed" and self._on_gpu
            hear(Ended(job.number, item, lambda: self.ray.get(weights)))
            if slot.trained >= TRIALS_PER_WORKER or failed_on_gpu:  # an error may stick to CUDA
                self._renew(slot)
        elif isinstance(item, Epoch) and hear(Reported(job.number, item)):
            slot.actor.stop.remote(job.number)

    def _greet(self, slot: _Slot) -> None:
        try:
            slot.place = self.ray.get(slot.ready)
            slot.ready = None
            self._failed_starts = -1  # some do start
        except self.ray.exceptions.RayError as error:
            self._failed_starts += self._failed_starts >= 0
            if self._failed_starts >= FAILED_STARTS:
                raise InputError(
                    f"workers cannot start: {_why(error)}; --workers inline does without them"
                ) from None
            self._renew(slot)

    def _lose(self, slot: _Slot, hear: Hear, why: str) -> None:
        job = slot.job
        self._renew(slot)
        if job is not None:
            hear(Lost(job.number, why))

    def _new(self) -> _Slot:
        actor = self._make(*self._arguments)
        return _Slot(actor, actor.place.remote())

    def _renew(self, slot: _Slot) -> None:
        """Put a new worker in the place of one."""
        self.ray.kill(slot.actor)
        slot.__dict__.update(self._new().__dict__)

    def _kill_process(self, slot: _Slot) -> None:
        """Kill a worker of this machine in the one way that it cannot ignore."""
        node, process = slot.place
        if node == self.ray.get_runtime_context().get_node_id():
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)


def _connect(address: str | None, processors: int) -> tuple[Any, bool]:
    """Return the module `ray`, connected, and whether it is ours to shut down."""
    before = dict(os.environ)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    if address is None:
        # Ray binds to the loopback interface alone where it expects no cluster. It reads this when
        # it is imported, and so do the processes that it starts.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        return _initialize(address, processors)
    finally:
        for name in set(os.environ) - set(before):
            if name.startswith("RAY_"):
                del os.environ[name]


def _initialize(address: str | None, processors: int) -> tuple[Any, bool]:
    import ray  # noqa: PLC0415 - it reads the environment that was just set

    if ray.is_initialized():
        return ray, False
    before = signal.getsignal(signal.SIGTERM)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    try:
        if address is None:
            ray.init(
                "local",
                num_cpus=processors,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                **quiet,
            )
        else:
            ray.init(address, **quiet)
    except Exception as error:  # Ray raises many
        raise InputError(
            f"no Ray cluster answers: {in_a_line(error)} (got --ray-address {address}); start one with "
            "`ray start --head`"
            if address
            else f"Ray cannot be started: {in_a_line(error)}; use --workers inline"
        ) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray puts its own there
    # What Ray prints about workers that die is told in a line of ours.
    ray._private.worker.print_to_stdstream = lambda *arguments, **options: None
    return ray, True


def _paths() -> list[str]:
    return [str(Path(path).absolute()) for path in sys.path]


def _why(error: BaseException) -> str:
    """Say in a line what Ray tells in many."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    if isinstance(error, StopIteration) or not lines:
        return "its process ended"
    if "its worker process has died" in str(cause) or "SYSTEM_ERROR" in str(cause):
        return "its process died"
    if "node" in str(cause) and "died" in str(cause):
        return "its node died"
    return in_a_line(RuntimeError(lines[-1]))
