"""A lock that allows one coordinator per study, on one machine or on several.

On one file system this is a file lock, which ends with the process that holds it. Machines that share
only Optuna's storage find the holder there, with a *beat*: a number that the holder increases. If the
beat stops, another program takes the study over. If the old holder wakes up, it sees this before its
next write, and ends.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout

from lightning_tricks.errors import InputError, TakenOver, shown
from lightning_tricks.scores import PREFIX
from lightning_tricks.search.optuna_internals import user_attrs_of

BEAT_SECONDS = 10.0
"""Seconds between two beats."""
WATCH_SECONDS = 30.0
"""Seconds without a beat after which a holder on another machine counts as dead."""
LOCK = f"{PREFIX}lock"


@contextmanager
def study_lock(
    study: optuna.Study,
    folder: Path,
    print_line: Callable[[str], None],
    lost: Callable[[], None] = lambda: None,
) -> Iterator["StudyLock"]:
    """Keep other programs from working on a study.

    Args:
        study: the study to lock.
        folder: folder of the study's checkpoints.
        print_line: prints a line when the lock has to wait.
        lost: called, from any thread, when another program has taken the study over.

    Raises:
        InputError: if another program works on the study.
        TakenOver: if another program took it over because this one stood still.
    """
    file_lock = FileLock(folder / "lock")
    try:
        file_lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another program works on this study: wait for it to end (it holds {folder}/lock)"
        ) from None
    try:
        with StudyLock(study, print_line, lost) as lock:
            yield lock
    finally:
        file_lock.release()


class StudyLock:
    """The part of the lock that is in Optuna's storage."""

    def __init__(
        self, study: optuna.Study, print_line: Callable[[str], None], lost: Callable[[], None]
    ) -> None:
        self.study, self.print_line, self.lost = study, print_line, lost
        self.host = f"{socket.gethostname()}:{_boot()}"
        self.holder = uuid.uuid4().hex
        self.count = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._beat_forever, name="heartbeat", daemon=True)

    def __enter__(self) -> "StudyLock":
        held = _held(self.study)
        if held and held["host"] != self.host:
            self._watch(held)
        elif held and held["process"] != os.getpid() and _runs(held["process"], held["started"]):
            raise _refusal(held)
        self._write()
        if (now := _held(self.study)) and now.get("holder") != self.holder:
            raise _refusal(now)  # it began at the same moment
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *unused: object) -> None:
        del unused
        self.ended.set()
        self.thread.join(timeout=5)
        try:
            self.verify()
            self.study.set_user_attr(LOCK, None)
        except Exception as error:  # the database is away; others will see that the beat stopped
            self.print_line(f"the study's lock could not be released: {type(error).__name__}")

    def verify(self) -> None:
        """Check that this program still holds the study; call it before each write.

        Raises:
            TakenOver: if it does not.
        """
        held = _held(self.study)
        if held is not None and held.get("holder") == self.holder:
            return
        self.lost()
        by = "" if held is None else f" by process {held['process']} of {_host(held)}"
        raise TakenOver(
            f"this program stood still for a while, and its study was taken over{by}: this program "
            "ends and writes nothing more"
        )

    def _watch(self, held: dict[str, Any]) -> None:
        """Wait to see whether the holder, on another machine, is alive."""
        self.print_line(
            f"{_host(held)} worked on this study: checking whether it still does ({WATCH_SECONDS:g} s)"
        )
        deadline = time.monotonic() + WATCH_SECONDS
        while time.monotonic() < deadline:
            time.sleep(1)
            now = _held(self.study)
            if now is None:
                return
            if now != held:
                raise _refusal(now)

    def _beat_forever(self) -> None:
        while not self.ended.wait(BEAT_SECONDS):
            with suppress(Exception):  # the coordinator meets the same outage, and reports it
                try:
                    self.verify()
                except TakenOver:  # `verify` has told the coordinator
                    return
                self.count += 1
                self._write()

    def _write(self) -> None:
        process = os.getpid()
        self.study.set_user_attr(
            LOCK,
            {
                "host": self.host,
                "process": process,
                "started": _started(process),
                "holder": self.holder,
                "beat": self.count,
            },
        )


def _held(study: optuna.Study) -> dict[str, Any] | None:
    attributes = user_attrs_of(study)
    held: dict[str, Any] | None = attributes.get(LOCK)
    known = isinstance(held, dict) and {"host", "process", "started"} <= held.keys()
    if held is not None and not known:
        raise InputError(
            f"the storage is damaged: the study's lock reads {shown(held, 60)}; restore a backup, or "
            "choose another --study-name"
        )
    return held


def _host(held: dict[str, Any]) -> str:
    return str(held["host"]).split(":", maxsplit=1)[0]


def held(study: optuna.Study) -> bool:
    """Return whether a program is registered as working on the study."""
    return _held(study) is not None


def _refusal(held: dict[str, Any]) -> InputError:
    return InputError(
        f"another program works on this study: process {held['process']} of "
        f"{_host(held)}; wait for it to end"
    )


def _boot() -> str:
    """Return a string that tells apart machines, and containers of the same name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(process: int) -> str:
    """Return a process's start time: a later process of the same number has another."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _runs(process: int, started: str) -> bool:
    return bool(started) and _started(process) == started
