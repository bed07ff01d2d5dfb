"""Make or load Optuna studies."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.errors import InputError, UnknownStudy, check_name
from lightning_tricks.scores import is_own
from lightning_tricks.search.optuna_internals import storage_of
from lightning_tricks.search.outcomes import part_name
from lightning_tricks.search.promotion import is_paused
from lightning_tricks.search.pruners import PRUNERS
from lightning_tricks.search.sampling.samplers import SAMPLERS
from lightning_tricks.search.storage.opening import opened, place_of, storage_file, unopened


@dataclass(frozen=True)
class StudyMaker:
    """A study to make or load later, once all other input is checked."""

    study_name: str
    make: Callable[[], optuna.Study]


def create_study(
    name: str,
    *,
    direction: Literal["minimize", "maximize"] = "maximize",
    epochs: int = 20,
    storage: str | Path | BaseStorage | None = "optuna.journal",
    sampler: str | BaseSampler = "tricks",
    pruner: str = "pause",
    seed: int = 0,
) -> optuna.Study:
    """Create an Optuna study, or load it if it exists.

    Args:
        name: the study's name.
        direction: `maximize` or `minimize`.
        epochs: the full budget of a trial, which the pruner needs.
        storage: the path of a journal file, an Optuna URL, a storage, or None for memory.
        sampler: `tricks`, this package's own; `tpe`, `gp` or `random`, Optuna's; or any sampler object.
        pruner: one of `PRUNERS`.
        seed: the sampler's seed.

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
            storage=None if storage is None else opened(storage),
            direction=direction,
            sampler=sampler if isinstance(sampler, BaseSampler) else SAMPLERS[sampler](seed),
            pruner=PRUNERS[pruner](epochs),
            load_if_exists=True,
        )
    except InputError:
        raise
    except Exception as error:  # each storage raises its own
        raise unopened(storage, error) from None


def load_study(name: str, storage: str | Path | BaseStorage) -> optuna.Study:
    """Load an existing Optuna study.

    Raises:
        UnknownStudy: if there is no study of this name.
        InputError: if the storage cannot be opened.
    """
    file = None if isinstance(storage, BaseStorage) else storage_file(storage)
    if file is not None and not file.exists():
        raise InputError(f"there is no storage at {str(storage)!r}")
    try:
        found = opened(storage)
        if name in (study.study_name for study in found.get_all_studies()):
            return optuna.load_study(study_name=name, storage=found)
    except InputError:
        raise
    except Exception as error:  # each storage raises its own
        raise unopened(storage, error) from None
    raise UnknownStudy(f"there is no study {name!r} in {place_of(storage)}")


@contextmanager
def unannounced() -> Iterator[None]:
    """Silence Optuna's messages about studies that the user did not ask for."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(level, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def paused(study: optuna.Study) -> list[FrozenTrial]:
    """Return the study's paused trials, by number."""
    return [trial for trial in study.get_trials(deepcopy=False) if is_paused(trial)]


def begun(study: optuna.Study) -> list[FrozenTrial]:
    """Return the waiting trials that have paused before, by number."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    return [trial for trial in trials if is_own(trial)]


def trials_of_part(study: optuna.Study, part: str) -> list[FrozenTrial]:
    """Return the finished trials of a search's verdict or ablation; none if it has not begun."""
    try:
        name = part_name(study.study_name, part)
        return finished(optuna.load_study(study_name=name, storage=storage_of(study)))
    except KeyError:
        return []


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the study's finished trials that this package trained, by number."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.is_finished() and is_own(t)]
