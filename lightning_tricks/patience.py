"""An Optuna storage that waits for its database: an outage costs time, not the study.

It is also where every write passes a guard, which keeps a program from a study that it has lost.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import InterfaceError, OperationalError

from lightning_tricks.errors import in_a_line

OUTAGES = (OperationalError, InterfaceError, OSError)
"""What is raised when a database or a disk is away, and not when it is misused."""
PAUSE_SECONDS = 1.0
PATIENCE_SECONDS = 3600.0


class PatientStorage(BaseStorage):
    """Pass every call on to another storage; while that is away, try again."""

    def __init__(
        self, storage: BaseStorage, warn: Callable[[str], None], hurried: Callable[[], bool]
    ) -> None:
        self._storage, self._warn, self._hurried = storage, warn, hurried
        self.guard: Callable[[], None] = lambda: None
        """Called before each attempt to write; raises if nothing may be written any more."""
        self._away = False
        self._lock = threading.Lock()

    def _patiently(self, call: Callable[[bool], Any]) -> Any:
        """Call until it succeeds; the argument tells whether it was tried before."""
        start = time.monotonic()
        tried = False
        while True:
            try:
                result = call(tried)
            except (*OUTAGES, StorageInternalError) as error:
                wrapped = isinstance(error, StorageInternalError)  # any error of SQLAlchemy
                if wrapped and not isinstance(error.__cause__, OUTAGES):
                    raise
                if self._hurried() or time.monotonic() - start > PATIENCE_SECONDS:
                    raise
                why = in_a_line(error.__cause__ if wrapped and error.__cause__ else error)
                self._turn(True, f"the Optuna storage does not answer ({why}): waiting for it")
                tried = True
                time.sleep(PAUSE_SECONDS)
            else:
                if tried:  # reading may go well all along while a full disk takes no writing
                    self._turn(False, "the Optuna storage is back")
                return result

    def _turn(self, away: bool, line: str) -> None:
        """Tell once, whichever thread notices first."""
        with self._lock:
            turned, self._away = self._away != away, away
        if turned:
            self._warn(line)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        before = self.get_n_trials(study_id)

        def create(again: bool) -> int:
            self.guard()
            # The answer to an attempt may have been lost after the trial was made.
            if again and len(trials := self._storage.get_all_trials(study_id, deepcopy=False)) > before:
                return trials[-1]._trial_id
            return self._storage.create_new_trial(study_id, template_trial)

        number: int = self._patiently(create)
        return number

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        def change(again: bool) -> bool:
            self.guard()
            if again and self._storage.get_trial(trial_id).state == state:
                return True  # the answer was lost, not the change
            return self._storage.set_trial_state_values(trial_id, state, values)

        changed: bool = self._patiently(change)
        return changed


def _passed_on(name: str) -> Callable[..., Any]:
    writes = name.startswith(("create_", "set_", "delete_"))

    def method(self: PatientStorage, *arguments: Any, **options: Any) -> Any:
        def call(again: bool) -> Any:
            del again
            if writes:
                self.guard()
            return getattr(self._storage, name)(*arguments, **options)

        return self._patiently(call)

    return method


# All other methods, whichever Optuna's storages have.
for _name in (name for name in dir(BaseStorage) if not name.startswith("_")):
    if _name not in vars(PatientStorage):
        setattr(PatientStorage, _name, _passed_on(_name))
PatientStorage.__abstractmethods__ = frozenset()


def patient(
    storage: BaseStorage, warn: Callable[[str], None], hurried: Callable[[], bool]
) -> PatientStorage:
    """Return a storage that passes every call on, and tries again for an hour while it is away.

    Args:
        storage: any storage of Optuna. Its errors are raised once patience is at an end.
        warn: is told, in a line, when the storage is lost and when it is back.
        hurried: whether not to wait, since the user wants to leave.
    """
    # Its methods are set by a loop, which mypy does not see.
    return PatientStorage(storage, warn, hurried)  # type: ignore[abstract]
