"""Ray's driver, in its own process, because Ray kills its driver's process when Ray dies.

`ray_workers` starts it as a script that does not import the package, which would take seconds. It passes
bytes between the coordinator and the workers. It ends when its connection closes, together with the Ray
that it started; after `kill -9` of the coordinator, Ray's agents follow within about a minute.
"""

import contextlib
import gc
import importlib
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

ray: Any = importlib.import_module("ray")  # most of its calls have no types

WATCH_SECONDS = 1.0
"""Seconds between checks that Ray's own processes are alive."""
REACH_SECONDS = 10.0
"""Timeout in seconds for a cluster's answer."""
WEIGHTS_SECONDS = 300.0
"""Timeout in seconds for weights; later they count as lost with their node."""


class Actor:
    """The Ray actor of a worker; only here is the package imported.

    Args:
        paths: the study's `sys.path`.
        arguments: the arguments of `TrialRunner`.
    """

    def __init__(self, paths: list[str], *arguments: Any) -> None:
        sys.path += [path for path in paths if path not in sys.path]
        gc.disable()  # what is imported stays, so searching it for garbage only takes time
        self.runner = importlib.import_module("lightning_tricks.workers.ray_actor").TrialRunner(
            *arguments
        )
        gc.freeze()
        gc.enable()

    def place(self) -> tuple[str, int]:
        """Return Ray's id of the node, and the process id."""
        return importlib.import_module("ray").get_runtime_context().get_node_id(), os.getpid()

    def stop(self, number: int) -> None:
        """Stop a trial at the end of its epoch."""
        self.runner.stop(number)

    def train(self, job: bytes) -> Iterator[Any]:
        """Train trials; yield their news, and after each result its weights."""
        yield from self.runner.train(job)


class Driver:
    """Keeps workers alive, and passes on their messages as `(worker, word, content)`.

    Args:
        connection: the connection to the coordinator.
    """

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self.connection = connection
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Handle the coordinator's requests until the connection closes."""
        try:
            self._open(*self.connection.recv())
            count, resources, start = self.connection.recv()
        except Exception as error:  # Ray raises many kinds
            self.tell(0, "refused", str(error))
            return
        remote = ray.remote(**resources, max_concurrency=2, max_restarts=0)(Actor)
        start = [ray.put(argument) if isinstance(argument, bytes) else argument for argument in start]
        workers = [_ActorSlot(index, lambda: remote.remote(*start), self) for index in range(count)]
        with contextlib.suppress(EOFError):
            while True:
                index, word, content = self.connection.recv()
                getattr(workers[index], word)(content)

    def tell(self, worker: int, word: str, content: Any = None) -> None:
        """Send a message about a worker to the coordinator."""
        with self._lock, contextlib.suppress(OSError):  # the coordinator may be gone
            self.connection.send((worker, word, content))

    def _open(self, address: str | None, processors: int) -> None:
        """Connect to a cluster or start Ray on this machine, and report its resources."""
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if address is None:
            here = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
            ray.init("local", num_cpus=processors, **here, **quiet)
        else:
            _reach(address)
            ray.init(address, **quiet)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        own = ray.get_runtime_context().get_node_id()
        watched = [(n["NodeManagerAddress"], n["NodeManagerPort"]) for n in nodes if n["NodeID"] == own]
        if address is None:
            host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
            watched.append((host, int(port)))
        threading.Thread(target=_watch, args=(watched,), daemon=True).start()
        self.tell(0, "opened", (ray.cluster_resources(), len(nodes)))


class _ActorSlot:
    """One worker's slot, which a new actor may take over; its methods are the possible requests."""

    def __init__(self, index: int, make: Any, driver: Driver) -> None:
        self.index, self.make, self.driver = index, make, driver
        self.node, self.process = "", 0
        threading.Thread(target=self._keep, daemon=True).start()

    def train(self, jobs: bytes) -> None:
        self.jobs.put(jobs)

    def stop(self, number: int) -> None:
        self.actor.stop.remote(number)

    def weights(self, number: int) -> None:
        """Fetch the weights of one of the last trials."""
        try:
            held = ray.get(self.last[number], timeout=WEIGHTS_SECONDS)
            self.driver.tell(self.index, "weights", held)
        except Exception as error:  # lost with their node
            self.driver.tell(self.index, "no weights", str(error))

    def renew(self, content: None) -> None:
        """Replace an idle actor by a new one."""
        del content
        self.jobs.put(None)

    def kill(self, content: None) -> None:
        """Kill a hanging actor: with SIGKILL, which it cannot ignore, if it is on this machine."""
        del content
        jobs = self.jobs
        if self.node == ray.get_runtime_context().get_node_id():
            with contextlib.suppress(OSError):
                os.kill(self.process, signal.SIGKILL)
        ray.kill(self.actor)
        jobs.put(None)  # it may have finished its job just now

    def _keep(self) -> None:
        while True:
            self.jobs: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
            self.actor, why = self.make(), "it was replaced"
            try:
                self._serve()
            except Exception as error:  # Ray's, or StopIteration
                why = _why(error)
            self.driver.tell(self.index, "died", why)
            ray.kill(self.actor)

    def _serve(self) -> None:
        self.node, self.process = ray.get(self.actor.place.remote())
        self.driver.tell(self.index, "ready")
        while (job := self.jobs.get()) is not None:
            stream = self.actor.train.options(num_returns="streaming").remote(job)
            word, self.last = "", {}
            while word != "done":
                for word, number, content in ray.get(next(stream)):
                    if word == "result":
                        self.last[number] = next(stream)
                    self.driver.tell(self.index, word, (number, content))


def _reach(address: str) -> None:
    """Check that the address accepts connections: Ray would wait for minutes, or forever.

    Raises:
        OSError: if it does not.
    """
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()


def _watch(addresses: list[tuple[str, int]]) -> None:
    """End this process when one of Ray's is gone, instead of waiting forever."""
    while True:
        time.sleep(WATCH_SECONDS)
        for address in addresses:
            try:
                socket.create_connection(address, timeout=10).close()
            except ConnectionRefusedError:
                os._exit(1)
            except OSError:  # busy, not gone
                continue


def _why(error: BaseException) -> str:
    """Return one line that sums up Ray's long error."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    if isinstance(error, StopIteration) or not lines:
        return "its process ended"
    if "its worker process has died" in str(cause) or "SYSTEM_ERROR" in str(cause):
        return "its process died"
    if "node" in str(cause) and "died" in str(cause):
        return "its node died"
    return lines[-1]


def _leave_with(parent: int) -> None:
    """End this process when its parent is gone, even while it waits for Ray."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    Driver(Connection(int(sys.argv[1]))).serve()
    ray.shutdown()
    os._exit(0)  # even if threads are still waiting
