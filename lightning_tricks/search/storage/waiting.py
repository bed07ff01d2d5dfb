"""An Optuna storage that waits for its database: an outage costs time, not the study.

It also calls a guard before each write, so that a program cannot write to a study that it has lost.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import InterfaceError, OperationalError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_fixed

from lightning_tricks.errors import one_line
from lightning_tricks.search.optuna_internals import id_of
from lightning_tricks.search.passing_on import passing_on

OUTAGES = (OperationalError, InterfaceError, OSError)
"""Errors raised when a database or a disk is away, but not when it is misused."""
CONNECT_SECONDS = "5"
"""Timeout in seconds for connecting to PostgreSQL; libpq alone would wait forever."""
PAUSE_SECONDS = 1.0
PATIENCE_SECONDS = 3600.0


def _is_outage(error: BaseException) -> bool:
    if isinstance(error, StorageInternalError):  # wraps any error of SQLAlchemy
        return isinstance(error.__cause__, OUTAGES)
    return isinstance(error, OUTAGES)


_PassingOn: Any = passing_on(name for name in dir(BaseStorage) if not name.startswith("_"))
"""A storage class that passes on all public methods of Optuna's storages."""


class RetryingStorage(_PassingOn):  # type: ignore[misc]  # made at run time
    """Pass every call on to another storage; retry while that is away."""

    def __init__(
        self, storage: BaseStorage, warn: Callable[[str], None], leaving: Callable[[], bool]
    ) -> None:
        self._storage, self._warn, self._leaving = storage, warn, leaving
        self.guard: Callable[[], None] = lambda: None
        """Called before each write attempt; raises if the program may no longer write."""
        self._away = False
        self._lock = threading.Lock()

    def _pass_on(self, name: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        writes = name.startswith(("create_", "set_", "delete_"))

        def call(again: bool) -> Any:
            del again
            if writes:
                self.guard()
            return getattr(self._storage, name)(*arguments, **options)

        return self._retry(call)

    def _retry(self, call: Callable[[bool], Any]) -> Any:
        """Call until it succeeds; the argument says whether this is a retry."""
        for attempt in Retrying(
            retry=retry_if_exception(lambda error: _is_outage(error) and not self._leaving()),
            stop=stop_after_delay(PATIENCE_SECONDS),
            wait=wait_fixed(PAUSE_SECONDS),
            before_sleep=self._tell,
            reraise=True,
        ):
            with attempt:
                tried = attempt.retry_state.attempt_number > 1
                result = call(tried)
        if tried:  # not after each success: on a full disk, reads succeed and writes fail
            self._turn(False, "the Optuna storage is back")
        return result

    def _tell(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        cause = error.__cause__ if isinstance(error, StorageInternalError) else None
        why = one_line(cause or error or RuntimeError())
        self._turn(True, f"the Optuna storage does not answer ({why}): waiting for it")

    def _turn(self, away: bool, line: str) -> None:
        """Print the line once, even if several threads notice."""
        with self._lock:
            turned, self._away = self._away != away, away
        if turned:
            self._warn(line)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        known = -1 if template_trial is None else template_trial.number  # a draft has a number
        before = self.get_n_trials(study_id) if known < 0 else known

        def create(again: bool) -> int:
            self.guard()
            # An earlier attempt may have made the trial although its answer was lost.
            if again and len(trials := self._storage.get_all_trials(study_id, deepcopy=False)) > before:
                return id_of(trials[-1])
            return self._storage.create_new_trial(study_id, template_trial)

        number: int = self._retry(create)
        return number

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        def change(again: bool) -> bool:
            self.guard()
            if again and self._storage.get_trial(trial_id).state == state:
                return True  # the answer was lost, not the change
            return self._storage.set_trial_state_values(trial_id, state, values)

        changed: bool = self._retry(change)
        return changed


def retrying(
    storage: BaseStorage, warn: Callable[[str], None], leaving: Callable[[], bool]
) -> RetryingStorage:
    """Return a storage that passes every call on, and retries for an hour while the storage is away.

    Args:
        storage: any Optuna storage. After an hour its errors are raised.
        warn: prints a line when the storage is lost and when it is back.
        leaving: returns whether to stop waiting, because the user wants to leave.
    """
    return RetryingStorage(storage, warn, leaving)
