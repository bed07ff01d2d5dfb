"""Open a study's storage: a journal file, or a database."""

import os
import re
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileSymlinkLock
from sqlalchemy.exc import SQLAlchemyError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random

from lightning_tricks.errors import InputError, check_url, locked, one_line
from lightning_tricks.redaction import redacted
from lightning_tricks.search.storage.journal import (
    LOCK_SECONDS,
    Journal,
    damaged_journal,
    damaged_line,
    drop_cut_off_line,
)
from lightning_tricks.search.storage.waiting import CONNECT_SECONDS

MOST_ATTEMPTS = 10
"""Maximum attempts to open a new database while another program makes its tables."""


def opened(storage: str | Path | BaseStorage) -> BaseStorage:
    """Open a storage; try again if another program makes a new database's tables at the same moment."""
    named = _named(storage)
    for attempt in Retrying(
        retry=retry_if_exception(_made_by_another),
        stop=stop_after_attempt(MOST_ATTEMPTS),
        wait=wait_random(0.2, 1.0),
        reraise=True,
    ):
        with attempt:
            found = get_storage(named)
    return found


def _made_by_another(error: BaseException) -> bool:
    """Return whether an error says that another program already made a table or a row."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    text = str(error).lower()
    return isinstance(error, SQLAlchemyError) and ("already exists" in text or "unique" in text)


def _named(storage: str | Path | BaseStorage) -> BaseStorage | str:
    if isinstance(storage, BaseStorage):
        return storage
    if isinstance(storage, str) and re.match(r"\w+(\+\w+)?://", storage):
        check_url(storage)
        storage_file(storage)
        os.environ.setdefault("PGCONNECT_TIMEOUT", CONNECT_SECONDS)
        return storage
    path = Path(storage).expanduser()
    if not path.parent.is_dir() or (path.exists() and not path.is_file()) or not str(storage):
        raise InputError(
            f"the storage {str(storage)!r} cannot be opened: it must be the path of a journal file "
            "in an existing folder, or a URL such as sqlite:///optuna.db"
        )
    # A program that is killed while it writes leaves its lock behind. A write takes milliseconds, so
    # an old lock has no owner.
    lock = JournalFileSymlinkLock(str(path), grace_period=LOCK_SECONDS)
    drop_cut_off_line(path, lock)
    return JournalStorage(Journal(path, lock))


def storage_file(storage: str | Path) -> Path | None:
    """Return the file of a storage; None if it is a server's.

    Raises:
        InputError: if it is an in-memory SQLite database: each thread would have its own.
    """
    if not re.match(r"\w+(\+\w+)?://", str(storage)):
        return Path(storage).expanduser().absolute()
    backend, _, place = str(storage).partition("://")
    if backend.partition("+")[0] != "sqlite":
        return None
    file = place.removeprefix("/").partition("?")[0]
    if file in ("", ":memory:"):
        raise InputError(
            f"threads cannot share an in-memory SQLite database (got {storage}): give a file, such as "
            "sqlite:///optuna.db, or give no storage to create_study"
        )
    return Path(file).absolute()


def unopened(storage: object, error: Exception) -> InputError:
    """Return the error for a storage that cannot be opened; says why, and what to do."""
    if locked(error):
        return InputError(
            f"the storage {place_of(storage)} is locked by another program that writes to it: wait for "
            "that program, or stop it"
        )
    if not isinstance(storage, BaseStorage) and "://" not in str(storage):
        path = Path(str(storage))
        if path.is_file() and (line := damaged_line(path)):
            return damaged_journal(path, line)
    return InputError(
        f"the storage cannot be opened: {one_line(error)} (got {place_of(storage)}); give the path "
        "of a journal file, or an Optuna URL whose driver is installed and whose server is up"
    )


def place_of(storage: object) -> str:
    """Return where a storage is, without its password."""
    return redacted(str(storage), whole=True)[:200]
