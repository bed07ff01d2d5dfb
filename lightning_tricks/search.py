"""The Optuna study to search with: where it is stored, and what prunes its trials."""

import json
import math
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.errors import InputError, UnknownStudy, check_url, in_a_line, locked
from lightning_tricks.redaction import redacted
from lightning_tricks.samplers import LATEST, SAMPLERS, view

LOCK_SECONDS = 5
"""After so long, the lock of a journal file is taken for one that a dead program left behind."""


CONNECT_SECONDS = "5"
"""A PostgreSQL server that takes a call and says nothing is given up; libpq would wait for ever."""


def spared(epochs: int) -> int:
    """Return how many epochs no trial is pruned in: a third of the budget.

    Warm-up, cosine decay and dropout start slowly and catch up; a pruner that compares early
    would prune just the good tricks.
    """
    return math.ceil(epochs / 3)


class _LatestPruner(BasePruner):
    """Compare with the latest trials, so that a report costs the same however many there are."""

    def __init__(self, pruner: BasePruner, spared: int) -> None:
        self._pruner, self._spared = pruner, spared

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        if trial.last_step is None or trial.last_step < self._spared:
            return False

        def latest() -> list[FrozenTrial]:
            return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))[-LATEST:]

        return self._pruner.prune(view(study, latest), trial)


def _median(epochs: int) -> BasePruner:
    warmup = spared(epochs)
    median = optuna.pruners.MedianPruner(n_startup_trials=8, n_warmup_steps=warmup, n_min_trials=5)
    return _LatestPruner(median, warmup)


def _halving(epochs: int) -> BasePruner:
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=spared(epochs), reduction_factor=2)


class _FreshPruner(BasePruner):
    """Make a pruner anew for each question: Hyperband's makes its brackets when it is first asked.

    Several threads may do so at the same time. All that it has to remember is in the storage.
    """

    def __init__(self, make: Callable[[], BasePruner]) -> None:
        self._make = make

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return self._make().prune(study, trial)


def _hyperband(epochs: int) -> BasePruner:
    return _FreshPruner(
        partial(
            optuna.pruners.HyperbandPruner,
            min_resource=spared(epochs),
            max_resource=epochs,
            reduction_factor=2,
        )
    )


def _none(epochs: int) -> BasePruner:
    del epochs
    return optuna.pruners.NopPruner()


PRUNERS: Mapping[str, Callable[[int], BasePruner]] = {
    "median": _median,
    "halving": _halving,
    "hyperband": _hyperband,
    "none": _none,
}


@dataclass(frozen=True)
class Wanted:
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
        return optuna.load_study(study_name=name, storage=_storage(storage))
    except KeyError:
        raise UnknownStudy(f"there is no study {name!r} in {_shown(storage)}") from None
    except InputError:
        raise
    except Exception as error:  # each storage raises its own
        raise _unopened(storage, error) from None


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
    _mend(path, lock)
    return JournalStorage(_Journal(path, lock))


class _Journal(JournalFileBackend):
    """A journal file in which a line that could not be written whole is not written at all."""

    def __init__(self, path: Path, lock: JournalFileSymlinkLock) -> None:
        super().__init__(str(path), lock_obj=lock)
        self._place, self._own_lock = path, lock

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs(logs)
        except OSError:  # the disk is full, say: what comes next must begin on a line of its own
            _mend(self._place, self._own_lock)
            raise


def _mend(path: Path, lock: JournalFileSymlinkLock) -> None:
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


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that ended, in whatever state, by number."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]


def put_back(study: optuna.Study, trial: FrozenTrial | optuna.Trial) -> None:
    """Put a trial that is under way back in the queue, with its number and its parameters.

    Optuna has no public call for it; its storages take the state all the same, and hand the trial
    out again at the next `ask`.
    """
    study._storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)


def _unopened(storage: object, error: Exception) -> InputError:
    if locked(error):
        return InputError(
            f"the storage {_shown(storage)} is locked by another program that writes to it: wait for "
            "it, or end it"
        )
    if not isinstance(storage, BaseStorage) and "://" not in str(storage):
        path = Path(str(storage))
        if line := _damaged(path):
            return InputError(
                f"the storage cannot be opened: line {line} of the journal {str(path)!r} is damaged; "
                f"put a backup in its place, or go on from what stands before it: `head -n {line - 1} "
                f"{shlex.quote(str(path))} > mended.journal` and --storage mended.journal"
            )
    return InputError(
        f"the storage cannot be opened: {in_a_line(error)} (got {_shown(storage)}); give the path "
        "of a journal file, or an Optuna URL whose driver is installed and whose server is up"
    )


def _damaged(path: Path) -> int:
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


def _shown(storage: object) -> str:
    return redacted(str(storage), whole=True)[:200]
