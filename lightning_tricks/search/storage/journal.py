"""Journal files that survive a cut-off line and detect a changed byte.

Each line carries a checksum of its content, under a name that Optuna ignores. A line without one comes
from another program, and is read unchecked.
"""

import json
import shlex
import zlib
from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileSymlinkLock

from lightning_tricks.errors import InputError

LOCK_SECONDS = 5
"""Seconds after which a journal's lock counts as left behind by a dead program."""


CHECKSUM = "crc32"
"""Name of a line's checksum."""


class Journal(JournalFileBackend):
    """A journal file that removes a line it could not write completely."""

    def __init__(self, path: Path, lock: JournalFileSymlinkLock) -> None:
        super().__init__(str(path), lock_obj=lock)
        self._place, self._own_lock = path, lock
        self._offsets = [0]
        """Byte offset of each line read so far."""

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the entries from a line number on.

        Raises:
            InputError: if a line is damaged; names it.
        """
        start = min(log_number_from, len(self._offsets) - 1)
        with self._place.open("rb") as journal:
            journal.seek(self._offsets[start])
            for number, line in enumerate(journal, start):
                if not line.endswith(b"\n"):  # it is being written
                    return
                if number + 1 == len(self._offsets):
                    self._offsets.append(self._offsets[-1] + len(line))
                if number >= log_number_from:
                    yield self._read(line, number + 1)

    def _read(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            return _checked(line)
        except ValueError:
            raise damaged_journal(self._place, number) from None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        marked = [{**log, CHECKSUM: _checksum(log)} for log in logs]
        try:
            super().append_logs(marked)
        except OSError:  # such as a full disk: the next entry must begin on a new line
            drop_cut_off_line(self._place, self._own_lock)
            raise


def drop_cut_off_line(path: Path, lock: JournalFileSymlinkLock) -> None:
    """Drop an incomplete last line, left by a full disk or a crash of the machine."""
    if not path.exists():
        return
    lock.acquire()
    try:
        with path.open("r+b") as journal:
            content = journal.read()
            whole = content.rfind(b"\n") + 1
            if content.startswith(b"{") and 0 < whole < len(content):
                journal.truncate(whole)
    finally:
        lock.release()


def _checksum(log: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(log, separators=(",", ":")).encode())


def _checked(line: bytes) -> dict[str, Any]:
    """Return the entry of a line.

    Raises:
        ValueError: if its checksum is wrong, or the line is no entry.
    """
    log = json.loads(line)
    if not isinstance(log, dict):
        raise ValueError("no entry")
    mark = log.pop(CHECKSUM, None)
    if mark is not None and mark != _checksum(log):
        raise ValueError("another checksum")
    return log


def damaged_line(path: Path) -> int:
    """Return the number, from 1 on, of the first damaged line; 0 if there is none."""
    logs = []
    with path.open("rb") as journal:
        for number, line in enumerate(journal, 1):
            try:
                logs.append(_checked(line))
            except ValueError:
                return number
    return _first_refused(logs)


def _first_refused(logs: list[dict[str, Any]]) -> int:
    """Return the number of the first entry that Optuna rejects; 0 if it accepts all."""
    if not _refuses(logs):
        return 0
    taken, refused = 0, len(logs)
    while refused - taken > 1:
        middle = (taken + refused) // 2
        taken, refused = (taken, middle) if _refuses(logs[:middle]) else (middle, refused)
    return refused


class _Replayed(BaseJournalBackend):
    """A read-only journal of given entries."""

    def __init__(self, logs: list[dict[str, Any]]) -> None:
        self.logs = logs

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        return islice(self.logs, log_number_from, None)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise NotImplementedError


def _refuses(logs: list[dict[str, Any]]) -> bool:
    try:
        JournalStorage(_Replayed(logs))
    except Exception:  # a wrong entry may raise anything
        return True
    return False


def damaged_journal(path: Path, line: int) -> InputError:
    """Return the error for a damaged line, which says how to recover."""
    return InputError(
        f"the storage cannot be opened: line {line} of the journal {str(path)!r} is damaged; "
        f"restore a backup, or keep only the lines before it: `head -n {line - 1} "
        f"{shlex.quote(str(path))} > mended.journal` and --storage mended.journal"
    )
