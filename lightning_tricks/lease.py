"""One coordinator a study: a second one is refused, on the same machine or on another.

On one file system a lock says it at once, and is gone with the process that held it. Machines that
share only Optuna's storage see a *beat* there, a number that its holder counts up.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout

from lightning_tricks.errors import InputError

BEAT_SECONDS = 10.0
"""How often the holder counts on."""
WATCH_SECONDS = 30.0
"""A beat of another machine that stands still for so long is that of a program that died."""
LEASE = "lease"


@contextmanager
def alone(study: optuna.Study, folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Keep a second program from putting back the trials that this one is training.

    Args:
        study: which nobody else is to work on meanwhile.
        folder: of the study's checkpoints.
        say: is told when there is something to wait for.

    Raises:
        InputError: if another program works on the study.
    """
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another program works on this study: wait for it to end (it holds {folder}/lock)"
        ) from None
    try:
        with _Beat(study, say):
            yield
    finally:
        lock.release()


class _Beat:
    """Tell in Optuna's storage that the study is being worked on."""

    def __init__(self, study: optuna.Study, say: Callable[[str], None]) -> None:
        self.study, self.say = study, say
        self.host = f"{socket.gethostname()}:{_boot()}"
        self.count = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._beat_forever, name="lease", daemon=True)

    def __enter__(self) -> None:
        held = self._held()
        if held and held["host"] != self.host:
            self._watch(held)
        elif held and held["process"] != os.getpid() and _runs(held["process"], held["started"]):
            raise _refusal(held)
        self._write()
        if (now := self._held()) and (now["host"], now["process"]) != (self.host, os.getpid()):
            raise _refusal(now)  # it began in the same moment
        self.thread.start()

    def __exit__(self, *unused: object) -> None:
        del unused
        self.ended.set()
        self.thread.join(timeout=5)
        try:
            self.study.set_user_attr(LEASE, None)
        except Exception as error:  # the database is away; the lease is seen to be dead
            self.say(f"the study could not be signed off: {type(error).__name__}")

    def _watch(self, held: dict[str, Any]) -> None:
        """Look whether the holder, on another machine, is alive."""
        host = held["host"].split(":")[0]
        self.say(f"{host} worked on this study: looking whether it still does ({WATCH_SECONDS:g} s)")
        deadline = time.monotonic() + WATCH_SECONDS
        while time.monotonic() < deadline:
            time.sleep(1)
            now = self._held()
            if now is None:
                return
            if now != held:
                raise _refusal(now)

    def _beat_forever(self) -> None:
        while not self.ended.wait(BEAT_SECONDS):
            self.count += 1
            try:
                self._write()
            except Exception:  # the coordinator meets the same outage, and tells of it
                continue

    def _held(self) -> dict[str, Any] | None:
        held: dict[str, Any] | None = self.study.user_attrs.get(LEASE)
        return held

    def _write(self) -> None:
        process = os.getpid()
        self.study.set_user_attr(
            LEASE,
            {
                "host": self.host,
                "process": process,
                "started": _started(process),
                "beat": self.count,
            },
        )


def held(study: optuna.Study) -> bool:
    """Return whether some program says that it works on the study."""
    return study.user_attrs.get(LEASE) is not None


def _refusal(held: dict[str, Any]) -> InputError:
    return InputError(
        f"another program works on this study: process {held['process']} of "
        f"{held['host'].split(':')[0]}; wait for it to end"
    )


def _boot() -> str:
    """Tell machines, and containers of one name, apart."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(process: int) -> str:
    """Return when a process began, by which it is told from a later one of the same number."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _runs(process: int, started: str) -> bool:
    return bool(started) and _started(process) == started
