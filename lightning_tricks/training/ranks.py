"""A trial over several devices of one machine: one process per device, joined by Lightning's DDP.

This package starts the processes instead of Lightning. They then serve one trial after another, can be
told to stop, do not outlive their parent, and do not run the study's script again.
"""

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import torch

from lightning_tricks.errors import InputError
from lightning_tricks.task.task import Task
from lightning_tricks.trial.fit import fit
from lightning_tricks.trial.result import Epoch, Interrupted, Report, Result
from lightning_tricks.trial.training import Training

BEAT_SECONDS = 1.0
"""Seconds between the first process's signs of life during an epoch."""
STOP = b"stop"
_PROGRAM = "import sys; from lightning_tricks.training.ranks import serve; serve(int(sys.argv[1]))"


class RankDied(RuntimeError):
    """A process of the trial was killed, or crashed."""


def pickled(thing: Any) -> bytes:
    """Return an object pickled for another process; what that cannot import is pickled by value.

    Raises:
        InputError: if it cannot be pickled.
    """
    try:
        work: bytes = cloudpickle.dumps(thing)
    except Exception as error:  # whatever `__reduce__` of the user's classes raises
        raise InputError(
            f"the task cannot be pickled for another process: {error}; make everything in it "
            "picklable, or train in this process, on one device, with --workers inline"
        ) from None
    return work


class Ranks:
    """Processes that train the trials of a task together, one for each device.

    Args:
        task: what to train.
        devices: the number of devices that train a trial together.

    Raises:
        InputError: if the task cannot be pickled.
    """

    def __init__(self, task: Task, devices: int) -> None:
        self.task, self.devices = task, devices
        self._work = pickled(task)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection[Any, Any]] = []

    def train(self, training: Training) -> Result:
        """Return the result of one training; see `fit`.

        The processes do not wait for the answer to a report, so a stop takes effect an epoch late.

        Raises:
            RankDied: if a process died.
            Interrupted: soon after `training.interrupted()` becomes true.
        """
        job = cloudpickle.dumps(
            (
                training.tricks.model_dump(),
                training.seed,
                training.checkpoint,
                training.pause_after,
                _free_port(),
            )
        )
        sound = False
        try:
            if not self._processes:
                self._start()
            for connection in self._connections:
                connection.send_bytes(job)
            results = self._follow(training.report, training.interrupted)
            sound = len(results) == self.devices
        except (OSError, EOFError):
            raise RankDied("a process of the trial died") from None
        finally:
            if not sound:  # the others would wait forever
                self.close()
        first = self._connections[0] if sound else next(iter(results))
        return results.get(first) or next(iter(results.values()))

    def close(self) -> None:
        """End the processes."""
        for process, connection in zip(self._processes, self._connections, strict=True):
            process.kill()
            process.wait()
            connection.close()
        self._processes, self._connections = [], []

    def _start(self) -> None:
        threads = max(joblib.cpu_count(only_physical_cores=True) // self.devices, 1)
        shared = {
            "OMP_NUM_THREADS": str(threads),
            **os.environ,
            "MASTER_ADDR": "127.0.0.1",
            "NODE_RANK": "0",
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        }
        for rank in range(self.devices):
            here, there = Pipe()
            with there:
                process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, str(there.fileno())],
                    env={**shared, "LOCAL_RANK": str(rank)},
                    pass_fds=[there.fileno()],
                    start_new_session=True,  # Ctrl-C goes to the program only
                )
            self._processes.append(process)
            self._connections.append(here)
            here.send_bytes(cloudpickle.dumps((self._work, self.devices)))

    def _follow(
        self, report: Report, interrupted: Callable[[], bool]
    ) -> "dict[Connection[Any, Any], Result]":
        """Pass on reports and stops until all processes have a result, or one fails.

        Only the first failure is returned: it causes the others.
        """
        first = self._connections[0]
        epochs: list[Epoch] = []
        results: dict[Connection[Any, Any], Result] = {}
        while len(results) < self.devices:
            for connection in wait([c for c in self._connections if c not in results]):
                if interrupted():
                    raise Interrupted
                assert isinstance(connection, Connection)
                message: Epoch | Result | None = cloudpickle.loads(connection.recv_bytes())
                if isinstance(message, Epoch):
                    epochs.append(message)
                    if report(message):
                        first.send_bytes(STOP)
                elif message is not None:
                    results[connection] = replace(message, epochs=epochs)
                    if message.state == "failed" or message.diverged:
                        return {connection: results[connection]}
        return results


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class _Rank:
    """The code that runs in each process."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self.connection = connection
        work, self.devices = cloudpickle.loads(connection.recv_bytes())
        self.task: Task = cloudpickle.loads(work)
        self.leads = os.environ["LOCAL_RANK"] == "0"
        self.jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.stop = threading.Event()
        self.beaten = 0.0
        threading.Thread(target=self._listen, daemon=True).start()

    def serve(self) -> None:
        """Train one trial after another."""
        while True:
            recipe, seed, checkpoint, pause_after, port = cloudpickle.loads(self.jobs.get())
            os.environ["MASTER_PORT"] = str(port)
            self.stop.clear()
            tricks = self.task.tricks.parse(recipe)
            training = Training(
                self.task,
                tricks,
                seed,
                self._report,
                self._beat,
                checkpoint,
                pause_after=pause_after,
            )
            result = fit(training, self.devices)
            if torch.distributed.is_initialized() and result.state != "failed":
                torch.distributed.destroy_process_group()
            self._tell(result if self.leads else replace(result, weights={}))

    def _report(self, epoch: Epoch) -> bool:
        self._tell(epoch)
        return self.stop.is_set()

    def _beat(self) -> bool:
        if self.leads and time.monotonic() - self.beaten > BEAT_SECONDS:
            self.beaten = time.monotonic()
            self._tell(None)
        return False

    def _tell(self, message: Epoch | Result | None) -> None:
        self.connection.send_bytes(cloudpickle.dumps(message))

    def _listen(self) -> None:
        """Receive jobs and stops; end when the parent process is gone."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = self.connection.recv_bytes()
                if message == STOP:
                    self.stop.set()
                else:
                    self.jobs.put(message)
        os._exit(1)


def serve(descriptor: int) -> None:
    """Run one of the processes; `descriptor` is the file descriptor of its connection."""
    _Rank(Connection(descriptor)).serve()
