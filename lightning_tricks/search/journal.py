"""Journal files that survive being cut off."""

import json
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

LOCK_SECONDS = 5
"""After so long, the lock of a journal file is taken for one that a dead program left behind."""


class Journal(JournalFileBackend):
    """A journal file in which a line that could not be written whole is not written at all."""

    def __init__(self, path: Path, lock: JournalFileSymlinkLock) -> None:
        super().__init__(str(path), lock_obj=lock)
        self._place, self._own_lock = path, lock

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs(logs)
        except OSError:  # the disk is full, say: what comes next must begin on a line of its own
            _drop_cut_off_line(self._place, self._own_lock)
            raise


def _drop_cut_off_line(path: Path, lock: JournalFileSymlinkLock) -> None:
    """Drop a last line that was cut off when the disk was full or the machine went down."""
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


def damaged_line(path: Path) -> int:
    """Return the number, from 1 on, of the first line that is no entry of a journal; 0 if all are."""
    with path.open("rb") as journal:
        for number, line in enumerate(journal, 1):
            try:
                entry = json.loads(line)
            except ValueError:
                return number
            if not isinstance(entry, dict) or "op_code" not in entry:
                return number
    return 0
