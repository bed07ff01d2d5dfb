"""The process of Ray's driver, as the coordinator sees it: started, asked, heard and ended."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

from lightning_tricks.workers.ray_address import refusal, running_address

OPEN_SECONDS = 180.0
"""Timeout in seconds for Ray to start or to answer."""
CLOSE_SECONDS = 10.0
"""Timeout in seconds for Ray's driver to end by itself."""
LONGEST_TEMPORARY = 40
"""Maximum length of the temporary folder's path: a socket's path has about 100 characters, and Ray uses
60 of them below its folder."""
_DRIVER = Path(__file__).with_name("ray_driver.py")
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # idle threads leave the cores to the other workers
}
# Without a cluster, this makes Ray bind to the loopback interface only.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
Message = tuple[int, str, Any]
"""A worker's index, a word, and what it is about."""


class RayProcess:
    """Ray's driver in its own process, and the connection to it.

    Args:
        address: address of a running cluster; None starts Ray on this machine.
    """

    def __init__(self, address: str | None) -> None:
        self.address = address
        environment = {**_ENVIRONMENT, **({} if address else _LOOPBACK), **os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(paths())
        if address is None and len(tempfile.gettempdir()) > LONGEST_TEMPORARY:
            environment.setdefault("RAY_TMPDIR", "/tmp")
        self._connection, there = Pipe()
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_DRIVER), str(there.fileno())],
                env=environment,
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # Ray prints a hundred lines when it dies
                start_new_session=True,  # Ctrl-C goes to the program only
            )

    def resources(self, processors: int) -> tuple[Mapping[str, float], int]:
        """Wait until Ray has started; return its resources and its number of nodes.

        Args:
            processors: number of processors that a Ray on this machine offers.

        Raises:
            InputError: if Ray does not start, or the cluster does not answer.
        """
        word: str
        content: Any
        word, content = "refused", f"nothing in {OPEN_SECONDS:g} s"
        try:
            self._connection.send((self.address or running_address(), processors))
            if self._connection.poll(OPEN_SECONDS):
                _, word, content = self._connection.recv()
        except (EOFError, OSError):
            word, content = "refused", "its process ended"
        if word == "refused":
            raise refusal(self.address, content)
        held, nodes = content
        return held, nodes

    def send(self, *message: Any) -> None:
        """Send a message; if the process died, the next `receive` raises an error."""
        with contextlib.suppress(OSError):
            self._connection.send(message)

    def waits(self, seconds: float) -> bool:
        """Tell whether a message is there, or comes within some seconds."""
        return self._connection.poll(seconds)

    def receive(self) -> Message:
        """Return the next message.

        Raises:
            EOFError, OSError: if the process died.
        """
        message: Message = self._connection.recv()
        return message

    def close(self) -> None:
        """End the process, with the Ray that it started."""
        self._connection.close()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def paths() -> list[str]:
    """Return the absolute paths from which this process imports."""
    return [str(Path(path).absolute()) for path in sys.path]
