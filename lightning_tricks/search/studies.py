"""Make or load Optuna studies."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.errors import InputError, UnknownStudy, check_name, shown, user_code, whole_number
from lightning_tricks.scores import is_own
from lightning_tricks.search.optuna_internals import storage_of
from lightning_tricks.search.outcomes import part_name
from lightning_tricks.search.promotion import is_paused
from lightning_tricks.search.pruners import PRUNERS
from lightning_tricks.search.sampling.samplers import SAMPLERS
from lightning_tricks.search.storage.opening import opened, place_of, storage_file, unopened
from lightning_tricks.task.task import Task

Make = TypeVar("Make")
_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, NotImplementedError)
"""Exceptions of a sampler or a pruner; those of a storage are others."""


@dataclass(frozen=True)
class StudyMaker:
    """A study to make or load later, once all other input is checked."""

    study_name: str
    make: Callable[[], optuna.Study]


def create_study(
    task: Task | str,
    *,
    name: str | None = None,
    direction: Literal["minimize", "maximize"] | None = None,
    epochs: int | None = None,
    storage: str | Path | BaseStorage | None = "optuna.journal",
    sampler: str | BaseSampler = "tricks",
    pruner: str | BasePruner = "pause",
    seed: int = 0,
) -> optuna.Study:
    """Create an Optuna study, or load it if it exists.

    Args:
        task: what the study is of, which gives name, direction and epochs. Or only the study's name.
        name: the study's name, if it is not the task's.
        direction: `maximize` or `minimize`; without a task, `maximize` unless given.
        epochs: the full budget of a trial, which some pruners need; without a task, 20 unless given.
        storage: the path of a journal file, an Optuna URL, a storage, or None for memory.
        sampler: `tricks`, this package's own; `tpe`, `gp` or `random`, Optuna's; or any sampler object.
        pruner: one of `PRUNERS`, or any pruner object.
        seed: the sampler's seed.

    Raises:
        InputError: if the storage cannot be opened or a name is not known.

    Example:
        task = Task("mine", (train, validation), network, epochs=10)
        study = create_study(task)
        again = create_study(task, name="mine-gp", sampler="gp")
    """
    own = _settings(task)
    name = check_name(own[0] if name is None else name)
    direction = own[1] if direction is None else direction
    epochs = whole_number("epochs", own[2] if epochs is None else epochs, 1)
    if direction not in ("minimize", "maximize"):
        raise InputError(f"direction must be 'minimize' or 'maximize' (got {direction!r})")
    drawing = sampler if isinstance(sampler, BaseSampler) else _known("sampler", sampler, SAMPLERS)(seed)
    pruning = pruner if isinstance(pruner, BasePruner) else _known("pruner", pruner, PRUNERS)(epochs)
    try:
        return optuna.create_study(
            study_name=name,
            storage=None if storage is None else opened(storage),
            direction=direction,
            sampler=drawing,
            pruner=pruning,
            load_if_exists=True,
        )
    except InputError:
        raise
    except Exception as error:  # each storage raises its own
        raise unopened(storage, error) from None


def _known(what: str, name: object, known: Mapping[str, Make]) -> Make:
    """Return what makes the sampler or pruner of a name."""
    if not isinstance(name, str) or name not in known:
        raise InputError(f"{what} must be one of {sorted(known)}, or an object (got {shown(name, 80)})")
    return known[name]


def _settings(task: Task | str) -> tuple[str, Literal["minimize", "maximize"], int]:
    """Return the name, direction and epochs of a task's study, or defaults for one of this name."""
    return (task.name, task.direction, task.epochs) if isinstance(task, Task) else (task, "maximize", 20)


@contextmanager
def failing(what: str, chosen: object, hint: str = "") -> Iterator[None]:
    """Turn errors of the user's sampler or pruner into an `InputError`; those of our own are bugs.

    Args:
        what: "sampler" or "pruner".
        chosen: the object.
        hint: what another one must do.
    """
    own = type(chosen).__module__.startswith("lightning_tricks.")
    words = f"the {what} {type(chosen).__name__} fails"
    with user_code(words, f"give another one to create_study{hint}", of=() if own else _ERRORS):
        yield


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
