"""The Optuna study to search with: where it is stored, and what prunes its trials."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import optuna
from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.trial import FrozenTrial

from lightning_tricks.errors import InputError, UnknownStudy, check_url, locked, one_line
from lightning_tricks.redaction import redacted
from lightning_tricks.search.journal import (
    LOCK_SECONDS,
    Journal,
    _drop_cut_off_line,
    damaged_journal,
    damaged_line,
)
from lightning_tricks.search.pruners import PRUNERS
from lightning_tricks.search.samplers import SAMPLERS
from lightning_tricks.search.storage import CONNECT_SECONDS


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
    sampler: str = "tpe",
    pruner: str = "median",
    seed: int = 0,
) -> optuna.Study:
    """Create an Optuna study, or load the one that is there.

    Args:
        name: of the study.
        direction: `maximize` or `minimize`.
        epochs: the full budget of a trial, to which the pruner is fitted.
        storage: the path of a journal file, an Optuna URL, a storage, or None for memory.
        sampler: one of `SAMPLERS`.
        pruner: one of `PRUNERS`.
        seed: of the sampler.

    Raises:
        InputError: if the storage cannot be opened or a name is not known.
    """
    for what, given, known in (("sampler", sampler, SAMPLERS), ("pruner", pruner, PRUNERS)):
        if given not in known:
            raise InputError(f"{what} must be one of {sorted(known)} (got {given!r})")
    try:
        return optuna.create_study(
            study_name=name,
            storage=None if storage is None else _storage(storage),
            direction=direction,
            sampler=SAMPLERS[sampler](seed),
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
        opened = get_storage(_storage(storage))
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
        return Path(storage).absolute()
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


def _storage(storage: str | Path | BaseStorage) -> BaseStorage | str:
    if isinstance(storage, BaseStorage):
        return storage
    if isinstance(storage, str) and re.match(r"\w+(\+\w+)?://", storage):
        check_url(storage)
        storage_file(storage)
        os.environ.setdefault("PGCONNECT_TIMEOUT", CONNECT_SECONDS)
        return storage
    path = Path(storage)
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
    """Return the trials that ended, in whatever state, by number."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]


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
