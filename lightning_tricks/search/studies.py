"""The Optuna study to search with: where it is stored, and what prunes its trials."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import optuna
from optuna.exceptions import StorageInternalError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random

from lightning_tricks.errors import InputError, UnknownStudy, check_name, check_url, locked, one_line
from lightning_tricks.redaction import redacted
from lightning_tricks.scores import is_own
from lightning_tricks.search.pruners import PRUNERS
from lightning_tricks.search.sampling.samplers import SAMPLERS
from lightning_tricks.search.storage.journal import (
    LOCK_SECONDS,
    Journal,
    _drop_cut_off_line,
    damaged_journal,
    damaged_line,
)
from lightning_tricks.search.storage.waiting import CONNECT_SECONDS

MOST_ATTEMPTS = 10
"""To open a new database whose tables another program makes."""


@dataclass(frozen=True)
class StudyMaker:
    """A study that is made, or loaded, once all else is known to be right."""

    study_name: str
    make: Callable[[], optuna.Study]


def create_study(
    name: str,
    *,
    direction: Literal["minimize", "maximize"] = "maximize",
    epochs: int = 20,
    storage: str | Path | BaseStorage | None = "optuna.journal",
    sampler: str | BaseSampler = "tricks",
    pruner: str = "median",
    seed: int = 0,
) -> optuna.Study:
    """Create an Optuna study, or load the one that is there.

    Args:
        name: of the study.
        direction: `maximize` or `minimize`.
        epochs: the full budget of a trial, to which the pruner is fitted.
        storage: the path of a journal file, an Optuna URL, a storage, or None for memory.
        sampler: `tricks`, this package's own; `tpe`, `gp` or `random`, Optuna's; or any sampler object.
        pruner: one of `PRUNERS`.
        seed: of the sampler.

    Raises:
        InputError: if the storage cannot be opened or a name is not known.
    """
    check_name(name)
    for what, given, known in (("sampler", sampler, SAMPLERS), ("pruner", pruner, PRUNERS)):
        if not isinstance(given, BaseSampler) and given not in known:
            raise InputError(f"{what} must be one of {sorted(known)} (got {given!r})")
    try:
        return optuna.create_study(
            study_name=name,
            storage=None if storage is None else _opened(storage),
            direction=direction,
            sampler=sampler if isinstance(sampler, BaseSampler) else SAMPLERS[sampler](seed),
            pruner=PRUNERS[pruner](epochs),
            load_if_exists=True,
        )
    except InputError:
        raise
    except Exception as error:  # each storage raises its own
        raise _unopened(storage, error) from None


def load_study(name: str, storage: str | Path | BaseStorage) -> optuna.Study:
    """Load the Optuna study that is there, and make none.

    Raises:
        UnknownStudy: if there is none of this name.
        InputError: if the storage cannot be opened.
    """
    file = None if isinstance(storage, BaseStorage) else storage_file(storage)
    if file is not None and not file.exists():
        raise InputError(f"there is no storage at {str(storage)!r}")
    try:
        opened = _opened(storage)
        if name in (study.study_name for study in opened.get_all_studies()):
            return optuna.load_study(study_name=name, storage=opened)
    except InputError:
        raise
    except Exception as error:  # each storage raises its own
        raise _unopened(storage, error) from None
    raise UnknownStudy(f"there is no study {name!r} in {_shown(storage)}")


def storage_file(storage: str | Path) -> Path | None:
    """Return the file of a storage; None if it is a server's.

    Raises:
        InputError: if it is a SQLite database in memory: each thread would have its own.
    """
    if not re.match(r"\w+(\+\w+)?://", str(storage)):
        return Path(storage).expanduser().absolute()
    backend, _, place = str(storage).partition("://")
    if backend.partition("+")[0] != "sqlite":
        return None
    file = place.removeprefix("/").partition("?")[0]
    if file in ("", ":memory:"):
        raise InputError(
            f"a SQLite database in memory is each thread's own (got {storage}): give it a file, such as "
            "sqlite:///optuna.db, or give no storage to create_study"
        )
    return Path(file).absolute()


def _opened(storage: str | Path | BaseStorage) -> BaseStorage:
    """Open a storage; another program may make the tables of a new database in the same moment."""
    found = _storage(storage)
    for attempt in Retrying(
        retry=retry_if_exception(_made_by_another),
        stop=stop_after_attempt(MOST_ATTEMPTS),
        wait=wait_random(0.2, 1.0),
        reraise=True,
    ):
        with attempt:
            opened = get_storage(found)
    return opened


def _made_by_another(error: BaseException) -> bool:
    """Tell whether a table, or a row of one, was there before it could be made."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    text = str(error).lower()
    return isinstance(error, SQLAlchemyError) and ("already exists" in text or "unique" in text)


def _storage(storage: str | Path | BaseStorage) -> BaseStorage | str:
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
            "in a folder that is there, or a URL such as sqlite:///optuna.db"
        )
    # A program that is killed while it writes leaves its lock behind. A write takes milliseconds, so
    # a lock that old is nobody's.
    lock = JournalFileSymlinkLock(str(path), grace_period=LOCK_SECONDS)
    _drop_cut_off_line(path, lock)
    return JournalStorage(Journal(path, lock))


@contextmanager
def unannounced() -> Iterator[None]:
    """Let Optuna say nothing of studies that the user did not ask for."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(level, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that were trained and ended, in whatever state, by number."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.is_finished() and is_own(t)]


def _unopened(storage: object, error: Exception) -> InputError:
    if locked(error):
        return InputError(
            f"the storage {_shown(storage)} is locked by another program that writes to it: wait for "
            "it, or end it"
        )
    if not isinstance(storage, BaseStorage) and "://" not in str(storage):
        path = Path(str(storage))
        if path.is_file() and (line := damaged_line(path)):
            return damaged_journal(path, line)
    return InputError(
        f"the storage cannot be opened: {one_line(error)} (got {_shown(storage)}); give the path "
        "of a journal file, or an Optuna URL whose driver is installed and whose server is up"
    )


def _shown(storage: object) -> str:
    return redacted(str(storage), whole=True)[:200]
