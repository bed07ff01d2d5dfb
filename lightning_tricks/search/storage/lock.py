"""One coordinator a study: a second one is refused, on the same machine or on another.

On one file system a lock says it at once, and is gone with the process that held it. Machines that
share only Optuna's storage see there who holds the study, with a *beat*, a number that the holder
counts up. A holder that stood still is taken over; should it come back, it finds another one there
before it writes anything, and ends.
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
"""How often the holder counts on."""
WATCH_SECONDS = 30.0
"""A beat of another machine that stands still for so long is that of a program that died."""
LOCK = f"{PREFIX}lock"


@contextmanager
def study_lock(
    study: optuna.Study,
    folder: Path,
    print_line: Callable[[str], None],
    lost: Callable[[], None] = lambda: None,
) -> Iterator["StudyLock"]:
    """Keep a second program from putting back the trials that this one is training.

    Args:
        study: which nobody else is to work on meanwhile.
        folder: of the study's checkpoints.
        print_line: is told when there is something to wait for.
        lost: is called, from whichever thread notices, when another program has taken over.

    Raises:
        InputError: if another program works on the study.
        TakenOver: if one took it over meanwhile, since this one stood still.
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
    """What Optuna's storage says about who works on the study."""

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
            raise _refusal(now)  # it began in the same moment
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *unused: object) -> None:
        del unused
        self.ended.set()
        self.thread.join(timeout=5)
        try:
            self.verify()
            self.study.set_user_attr(LOCK, None)
        except Exception as error:  # the database is away; the lock is seen to be dead
            self.print_line(f"the study could not be signed off: {type(error).__name__}")

    def verify(self) -> None:
        """Make sure that the study is still this program's: to be called before each write.

        Raises:
            TakenOver: if it is not.
        """
        held = _held(self.study)
        if held is not None and held.get("holder") == self.holder:
            return
        self.lost()
        by = "" if held is None else f" by process {held['process']} of {_host(held)}"
        raise TakenOver(
            f"this program stood still for a while, and its study was taken over{by}: it leaves the "
            "study to that one, and writes nothing more"
        )

    def _watch(self, held: dict[str, Any]) -> None:
        """Look whether the holder, on another machine, is alive."""
        self.print_line(
            f"{_host(held)} worked on this study: looking whether it still does ({WATCH_SECONDS:g} s)"
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
            with suppress(Exception):  # the coordinator meets the same outage, and tells of it
                try:
                    self.verify()
                except TakenOver:  # the coordinator is told, and meets the same
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
            f"the storage is damaged: who works on the study is {shown(held, 60)} there; put a backup "
            "in its place, or choose another --study-name"
        )
    return held


def _host(held: dict[str, Any]) -> str:
    return str(held["host"]).split(":", maxsplit=1)[0]


def held(study: optuna.Study) -> bool:
    """Return whether some program says that it works on the study."""
    return _held(study) is not None


def _refusal(held: dict[str, Any]) -> InputError:
    return InputError(
        f"another program works on this study: process {held['process']} of "
        f"{_host(held)}; wait for it to end"
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
