"""The Optuna study to search with: where it is stored, what proposes records, what prunes them."""

import math
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.errors import InputError, in_a_line
from lightning_tricks.seeds import derive

LOCK_SECONDS = 5
"""After so long, the lock of a journal file is taken for one that a dead program left behind."""


class SeededSampler(BaseSampler):
    """Make a fresh sampler for each trial, seeded by the study's seed and the trial's number.

    What is proposed then depends on the trials before alone, not on how often the program was
    started since: a study that was killed and resumed proposes what it would have without.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._sampler = make(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler = self._make(derive(self._seed, trial.number, "sampler"))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        # A sampler of its own for each parameter: a trial that was killed while it was drawn has
        # some of its parameters, and the others must not depend on which.
        sampler = self._make(derive(self._seed, trial.number, param_name))
        return sampler.sample_independent(study, trial, param_name, param_distribution)


def _tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        # `group` draws the parameters that are active together from one joint density; Optuna has
        # marked it experimental since 2.8.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)


def _gp(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.GPSampler(seed=seed)


def _random(seed: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {"tpe": _tpe, "random": _random, "gp": _gp}


def spared(epochs: int) -> int:
    """Return how many epochs no trial is pruned in: a third of the budget.

    Warm-up, cosine decay and dropout start slowly and catch up; a pruner that compares early
    would prune just the good tricks.
    """
    return math.ceil(epochs / 3)


def _median(epochs: int) -> BasePruner:
    return optuna.pruners.MedianPruner(n_startup_trials=8, n_warmup_steps=spared(epochs), n_min_trials=5)


def _halving(epochs: int) -> BasePruner:
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=spared(epochs), reduction_factor=2)


def _hyperband(epochs: int) -> BasePruner:
    return optuna.pruners.HyperbandPruner(
        min_resource=spared(epochs), max_resource=epochs, reduction_factor=2
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
            storage=_storage(storage),
            direction=direction,
            sampler=SeededSampler(SAMPLERS[sampler], seed),
            pruner=PRUNERS[pruner](epochs),
            load_if_exists=True,
        )
    except InputError:
        raise
    except Exception as error:  # each storage raises its own
        raise InputError(
            f"the storage cannot be opened: {in_a_line(error)} (got {_shown(storage)}); give the path "
            "of a journal file, or an Optuna URL whose driver is installed and whose server is up"
        ) from None


def _storage(storage: str | Path | BaseStorage | None) -> BaseStorage | str | None:
    if storage is None or isinstance(storage, BaseStorage):
        return storage
    if isinstance(storage, str) and re.match(r"\w+(\+\w+)?://", storage):
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
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


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


def _shown(storage: object) -> str:
    return in_a_line(ValueError(str(storage)))
