"""The thread that writes about trials, in few batches, and tries again while MLflow is away."""

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
from lightning_tricks.tracking.run_update import Update

FLUSH_SECONDS = 2.0
"""How long events are gathered before they are written in one batch."""
REST = 4.0
"""After writing about a trial the thread rests so many times as long: the coordinator shares the
interpreter with it."""
PAUSE_SECONDS = 2.0
"""How long to wait for a server that is down before trying again."""
_METRICS_AT_ONCE = 800  # MLflow takes 1000 entries in a batch, of which 100 may be params
_PARAMS_AT_ONCE = 100
SOURCE = {"mlflow.source.name": sys.argv[0], "mlflow.source.type": "LOCAL"}


class Writer:
    """Write what is known of trials under the run of their study, off the caller's path.

    Args:
        client: of MLflow.
        experiment_id: of the study's experiment.
        run_id: of the study's run.
        uri: as it is shown.
        warn: is told, in a line, when the server is lost and when it is back.
        guard: is called before anything is written, and raises if nothing may be.
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
        """The ids of the trials' runs, by number."""
        self.down = False
        """Whether the last attempt to write failed."""
        self.refused: dict[int, str] = {}
        """Why MLflow does not take what was to be written about some trials, by number."""
        self._pending: dict[int, Update] = {}
        self._places: dict[str, str] = {}
        self._lock = threading.Condition()
        self._written = 0
        self._urgent = self._writing = self._closing = False
        self._thread = threading.Thread(target=self._write_forever, name="mlflow", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def update(self, number: int, update: Update) -> None:
        """Note what is to be written about a trial, and return at once."""
        with self._lock:
            if number in self._pending:
                self._pending[number].merge(update)
            else:
                self._pending[number] = update
            self._lock.notify()

    def flush(self, timeout: float) -> bool:
        """Wait until all is written; return whether it is.

        Args:
            timeout: in seconds; when nothing was written for so long, it gives up.
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
        """Write what is left, unless the server is away; return whether all is written."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        self._thread.join(timeout=30)
        return not (self.down or self._pending or self._writing or self.refused)

    @property
    def unwritten(self) -> int:
        """Of how many trials something is still to be written."""
        return len(self._pending)

    def _write_forever(self) -> None:
        """Write what is pending, batch by batch, until closed."""
        while True:
            with self._lock:
                while not self._pending and not self._closing:
                    self._lock.wait()
                if not self._pending:
                    return
                self._rest(FLUSH_SECONDS)
                batch, self._pending = self._pending, {}
                self._writing = True
            with contextlib.suppress(TakenOver):  # whoever waits meets the same
                self._write(batch)
            with self._lock:
                self._writing = False
                self._lock.notify_all()
                if self._closing and self.down:
                    return
                if self.down:
                    self._rest(PAUSE_SECONDS)

    def _rest(self, seconds: float) -> None:
        """Wait, unless somebody waits for what is pending."""
        self._lock.wait_for(lambda: self._urgent or self._closing, timeout=seconds)

    def _write(self, batch: dict[int, Update]) -> None:
        """Write a batch; what fails goes back before what came meanwhile."""
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
        """Leave out what MLflow does not take; its run says so, and how the trial ended."""
        why = one_line(error)
        if not self.refused:
            self._warn(f"MLflow refuses what is written about trial {number} ({why}): it is left out")
        self.refused.setdefault(number, why)
        run_id = self.runs.get(number)
        with contextlib.suppress(Exception):  # it may be the run that it does not take
            if run_id is not None:
                self.client.set_tag(run_id, "refused", why)
                if update.status not in (None, "RUNNING"):
                    self.client.set_terminated(run_id, update.status, end_time=update.end)

    def _lose(self, error: Exception) -> None:
        if not self.down:
            self._warn(
                f"MLflow at {self.uri} does not answer ({one_line(error)}); "
                "training goes on, and what is missing is written when it is back"
            )
        self.down = True

    def _apply(self, number: int, update: Update) -> None:
        """Write one trial's update; doing it twice does no harm."""
        if update.gone:
            if run_id := self.runs.get(number):
                self.client.delete_run(run_id)
                del self.runs[number]
            return
        tags = [RunTag(k, v) for k, v in update.tags.items()]
        run_id = self.runs.get(number)
        if run_id is None:
            run_id = self.runs[number] = self._create(number, update)
            tags = []  # the run was made with them
        params = _chunks([Param(k, v) for k, v in update.params.items()], _PARAMS_AT_ONCE)
        metrics = _chunks(update.metrics, _METRICS_AT_ONCE)
        nothing: list[Any] = []
        for some_params, some_metrics in itertools.zip_longest(params, metrics, fillvalue=nothing):
            self.client.log_batch(run_id, metrics=some_metrics, params=some_params, tags=tags)
            tags = []
        self._put(run_id, update.artifacts)
        if update.status not in (None, "RUNNING"):
            self.client.set_terminated(run_id, update.status, end_time=update.end)

    def _put(self, run_id: str, artifacts: Mapping[str, Any]) -> None:
        """Write artifacts; where to, is known of a run of this experiment without asking again."""
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
        if self.down:  # the answer to an earlier attempt may have been lost on the way
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
    """Split a list into pieces; an empty one into one empty piece."""
    return [items[at : at + size] for at in range(0, len(items), size)] or [[]]
