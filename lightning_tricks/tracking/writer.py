"""The thread that writes trials to MLflow in batches, and retries while MLflow is away."""

import contextlib
import itertools
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Param, RunTag
from mlflow.tracking import MlflowClient

from lightning_tricks.errors import TakenOver, one_line
from lightning_tricks.tracking.artifacts import repository
from lightning_tricks.tracking.client import refused_for_good
from lightning_tricks.tracking.format import NAME, run_name
from lightning_tricks.tracking.holdings import NUMBER, PARENT, children
from lightning_tricks.tracking.run_update import NOT_ENDED, Update

FLUSH_SECONDS = 2.0
"""Seconds for which updates are collected before they are written in one batch."""
REST = 4.0
"""Ratio of rest to writing time: the thread pauses after each trial, because the coordinator shares the
interpreter with it."""
PAUSE_SECONDS = 2.0
"""Seconds between two attempts while the server is down."""
_METRICS_AT_ONCE = 800  # MLflow takes 1000 entries in a batch, of which 100 may be params
_PARAMS_AT_ONCE = 100
SOURCE = {"mlflow.source.name": sys.argv[0], "mlflow.source.type": "LOCAL"}


class Writer:
    """Writes trials below their study's run without making the caller wait.

    Args:
        client: the MLflow client.
        experiment_id: id of the study's experiment.
        run_id: id of the study's run.
        uri: the tracking URI without password, for messages.
        warn: prints a line when the server is lost and when it is back.
        guard: called before each write; raises if the program may not write.
    """

    def __init__(
        self,
        client: MlflowClient,
        experiment_id: str,
        run_id: str,
        uri: str,
        warn: Callable[[str], None],
        guard: Callable[[], None],
    ) -> None:
        self.client, self.experiment_id, self.run_id = client, experiment_id, run_id
        self.uri, self._warn, self._guard = uri, warn, guard
        self.runs: dict[int, str] = {}
        """Ids of the trials' runs, by trial number."""
        self.down = False
        """Whether the last write attempt failed."""
        self.refused: dict[int, str] = {}
        """MLflow's reasons for refusing updates, by trial number."""
        self._pending: dict[int, Update] = {}
        self._places: dict[str, str] = {}
        self._lock = threading.Condition()
        self._written = 0
        self._urgent = self._writing = self._closing = False
        self._thread = threading.Thread(target=self._write_forever, name="mlflow", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def update(self, number: int, update: Update) -> None:
        """Queue an update of a trial, and return at once."""
        with self._lock:
            if number in self._pending:
                self._pending[number].merge(update)
            else:
                self._pending[number] = update
            self._lock.notify()

    def flush(self, timeout: float) -> bool:
        """Wait until everything is written; return whether it is.

        Args:
            timeout: seconds without progress after which it gives up.
        """
        written, deadline = self._written, time.monotonic() + timeout
        with self._lock:
            self._urgent = True
            self._lock.notify_all()
            while self._pending or self._writing:
                if written != self._written:
                    written, deadline = self._written, time.monotonic() + timeout
                if time.monotonic() > deadline:
                    break
                self._lock.wait(0.1)
            self._urgent = False
            return not (self._pending or self._writing)

    def close(self) -> bool:
        """Write the rest, unless the server is away; return whether everything is written."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        self._thread.join(timeout=30)
        return not (self.down or self._pending or self._writing or self.refused)

    @property
    def unwritten(self) -> int:
        """Number of trials with pending updates."""
        return len(self._pending)

    def _write_forever(self) -> None:
        """Write pending updates, batch by batch, until closed."""
        while True:
            with self._lock:
                while not self._pending and not self._closing:
                    self._lock.wait()
                if not self._pending:
                    return
                self._rest(FLUSH_SECONDS)
                batch, self._pending = self._pending, {}
                self._writing = True
            with contextlib.suppress(TakenOver):  # the coordinator meets the same error
                self._write(batch)
            with self._lock:
                self._writing = False
                self._lock.notify_all()
                if self._closing and self.down:
                    return
                if self.down:
                    self._rest(PAUSE_SECONDS)

    def _rest(self, seconds: float) -> None:
        """Pause, unless somebody waits for the pending updates."""
        self._lock.wait_for(lambda: self._urgent or self._closing, timeout=seconds)

    def _write(self, batch: dict[int, Update]) -> None:
        """Write a batch; after a failure the rest goes back, ahead of newer updates."""
        while batch:
            number, start = min(batch), time.monotonic()
            try:
                self._guard()
                self._apply(number, batch[number])
            except Exception as error:
                if refused_for_good(error):
                    self._refuse(number, batch[number], error)
                    del batch[number]
                    continue
                self._lose(error)
                with self._lock:
                    for late, update in self._pending.items():
                        if late in batch:
                            batch[late].merge(update)
                        else:
                            batch[late] = update
                    self._pending = batch
                return
            del batch[number]
            self._written += 1
            with self._lock:
                self._rest(REST * (time.monotonic() - start))
        if self.down:
            self.down = False
            self._warn(f"MLflow at {self.uri} is back")

    def _refuse(self, number: int, update: Update, error: Exception) -> None:
        """Skip an update that MLflow refuses; the run gets a tag with the reason, and its status."""
        why = one_line(error)
        if not self.refused:
            self._warn(f"MLflow refuses an update of trial {number} ({why}): the update is skipped")
        self.refused.setdefault(number, why)
        run_id = self.runs.get(number)
        with contextlib.suppress(Exception):  # it may refuse the whole run
            if run_id is not None:
                self.client.set_tag(run_id, "refused", why)
                if update.status not in (None, *NOT_ENDED):
                    self.client.set_terminated(run_id, update.status, end_time=update.end)

    def _lose(self, error: Exception) -> None:
        if not self.down:
            self._warn(
                f"MLflow at {self.uri} does not answer ({one_line(error)}); "
                "training goes on; missing updates are written when it is back"
            )
        self.down = True

    def _apply(self, number: int, update: Update) -> None:
        """Write one trial's update; repeating it is harmless."""
        if update.gone:
            if run_id := self.runs.get(number):
                self.client.delete_run(run_id)
                del self.runs[number]
            return
        tags = [RunTag(k, v) for k, v in update.tags.items()]
        status, run_id = update.status, self.runs.get(number)
        if run_id is None:
            run_id = self.runs[number] = self._create(number, update)
            tags = []  # the new run already has them, and is RUNNING
            status = None if status == "RUNNING" else status
        params = _chunks([Param(k, v) for k, v in update.params.items()], _PARAMS_AT_ONCE)
        metrics = _chunks(update.metrics, _METRICS_AT_ONCE)
        nothing: list[Any] = []
        for some_params, some_metrics in itertools.zip_longest(params, metrics, fillvalue=nothing):
            self.client.log_batch(run_id, metrics=some_metrics, params=some_params, tags=tags)
            tags = []
        self._put(run_id, update.artifacts)
        if status in NOT_ENDED:
            self.client.update_run(run_id, status)
        elif status is not None:
            self.client.set_terminated(run_id, status, end_time=update.end)

    def _put(self, run_id: str, artifacts: Mapping[str, Any]) -> None:
        """Write artifacts; the run's artifact URI is cached."""
        if not artifacts:
            return
        if run_id not in self._places:
            self._places[run_id] = str(self.client.get_run(run_id).info.artifact_uri)
        place = repository(self.client, self._places[run_id])
        with tempfile.TemporaryDirectory() as folder:
            for name, content in artifacts.items():
                text = content if isinstance(content, str) else json.dumps(content, indent=2)
                path = Path(folder, name)
                path.write_text(text, encoding="utf-8")
                place.log_artifact(str(path))  # type: ignore[no-untyped-call]

    def _create(self, number: int, update: Update) -> str:
        if self.down:  # an earlier attempt may have made the run although its answer was lost
            for run in children(self.client, self.experiment_id, self.run_id):
                if run.data.tags.get(NUMBER) == str(number):
                    self.client.delete_run(run.info.run_id)
        tags = {**update.tags, **SOURCE, PARENT: self.run_id, NUMBER: str(number)}
        run = self.client.create_run(
            self.experiment_id,
            start_time=update.start,
            tags=tags,
            run_name=tags.get(NAME, run_name(number)),
        )
        self._places = {run.info.run_id: run.info.artifact_uri}  # the last one is enough
        return str(run.info.run_id)


def _chunks(items: list[Any], size: int) -> list[list[Any]]:
    """Split a list into pieces; an empty list gives one empty piece."""
    return [items[at : at + size] for at in range(0, len(items), size)] or [[]]
