"""MLflow shows the study as a person thinks of it; the only file that imports mlflow.

An experiment per study name, a run per study, a nested run per trial. A `Tracker` is told what
happened and returns at once: a thread of its own writes, in few batches. While the server is down
it keeps what it was told and tries again; Optuna holds the truth, from which `reconcile` writes
whatever is still missing when the study is run again.
"""

import base64
import contextlib
import io
import itertools
import json
import logging
import math
import os
import secrets
import shlex
import ssl
import sys
import tempfile
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

import mlflow
import sqlalchemy
import torch
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.models import Model, infer_signature
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray
from torch import nn

from lightning_tricks.errors import InputError, TakenOver, check_url, in_a_line, locked
from lightning_tricks.redaction import redacted

Status = Literal["RUNNING", "FINISHED", "KILLED", "FAILED"]

FLUSH_SECONDS = 2.0
"""How long events are gathered before they are written in one batch."""
REST = 4.0
"""After writing about a trial the thread rests so many times as long: the coordinator shares the
interpreter with it."""
PAUSE_SECONDS = 2.0
"""How long to wait for a server that is down before trying again."""
ANSWER_SECONDS = 5.0
"""A server that does not answer by then, when a study begins, is taken for none."""
_DATABASES = ("postgresql", "mysql", "mssql")
_METRICS_AT_ONCE = 800  # MLflow takes 1000 entries in a batch, of which 100 may be params
_PARAMS_AT_ONCE = 100
_VARIABLE = "MLFLOW_TRACKING_URI"
_SQLITE = "sqlite:///"
_PARENT = "mlflow.parentRunId"
_NUMBER = "trial.number"
NAME, DESCRIPTION = "mlflow.runName", "mlflow.note.content"
"""The tags that the UI shows as a run's name and description."""
RANKING = "ranking"
_WIDTHS = {
    "attributes.`Run Name`": 180,
    "runDateAndNestInfo": 150,
    "tags.`role`": 110,
    "params.`optimizer`": 110,
    "params.`normalization`": 110,
    "metrics.`objective`": 100,
    "metrics.`gradient/first_to_last`": 170,
    "tags.`reason`": 260,
}
"""In pixels, of columns by the names that the UI has for them."""
_SOURCE = {"mlflow.source.name": sys.argv[0], "mlflow.source.type": "LOCAL"}


@dataclass
class Update:
    """What is to be written about one trial; a later one is merged into an earlier one."""

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[Metric] = field(default_factory=list)
    artifacts: dict[str, Any] = field(default_factory=dict)
    """Text, or data to be written as JSON, by file name."""
    start: int | None = None
    """Milliseconds since the epoch."""
    end: int | None = None
    status: Status | None = None
    gone: bool = False
    """The trial was put back in the queue: its run is removed."""

    def merge(self, later: "Update") -> None:
        """Add what came later."""
        self.params |= later.params
        self.tags |= later.tags
        self.metrics += later.metrics
        self.artifacts |= later.artifacts
        self.start = self.start or later.start
        self.end = later.end or self.end
        self.status = later.status or self.status
        self.gone = later.gone


class Tracker:
    """Write a study to MLflow, off the caller's path.

    Args:
        uri: anything MLflow takes as a tracking URI.
        experiment: the name of the experiment, which is made if it is not there.
        warn: is told, in a line, when the server is lost and when it is back.
        guard: is called before anything is written, and raises if nothing may be.

    Raises:
        InputError: if MLflow cannot be reached.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        warn: Callable[[str], None],
        guard: Callable[[], None] = lambda: None,
    ) -> None:
        self.uri, self.name, self._warn, self._guard = redacted(uri, whole=True), experiment, warn, guard
        with _told(uri):
            _make_database(uri)
            self.client = _client(uri)
            self._store = self.client.tracking_uri
            found = _experiment(self.client, experiment, uri)
            self.experiment_id = found or self.client.create_experiment(experiment)
        self.run_id = ""
        self._runs: dict[int, str] = {}
        self._pending: dict[int, Update] = {}
        self._places: dict[str, str] = {}
        self._lock = threading.Condition()
        self._written = 0
        self._urgent = self._writing = self._closing = self._down = False
        self._thread = threading.Thread(target=self._write_forever, name="mlflow", daemon=True)

    @property
    def down(self) -> bool:
        """Whether the last attempt to write failed."""
        return self._down

    def open(self, run_id: str | None, name: str, tags: Mapping[str, str]) -> str:
        """Open the study's run, again if it is there already, and start to write; return its id.

        Raises:
            InputError: if MLflow cannot be written to.
        """
        try:
            self._open(run_id, name, tags)
        except Exception as error:  # a file that may not be written, a server that went away
            if locked(error):
                raise _unreachable(self.uri, error) from None
            raise InputError(
                f"MLflow cannot be written to: {in_a_line(error)} (got {self.uri})"
            ) from None
        self._thread.start()
        return self.run_id

    def _open(self, run_id: str | None, name: str, tags: Mapping[str, str]) -> None:
        if run_id is not None and self._exists(run_id):
            self.run_id = run_id
            self.client.update_run(run_id, status="RUNNING")
        else:
            if run_id is not None:  # all is written anew, not beside what is left of it
                for child in list(_children(self.client, self.experiment_id, run_id)):
                    self.client.delete_run(child.info.run_id)
            run = self.client.create_run(self.experiment_id, run_name=name)
            self.run_id = run.info.run_id
        tags = {**tags, **_SOURCE}
        self.client.log_batch(self.run_id, tags=[RunTag(k, v) for k, v in tags.items()])

    def update(self, number: int, update: Update) -> None:
        """Note what is to be written about a trial, and return at once."""
        with self._lock:
            if number in self._pending:
                self._pending[number].merge(update)
            else:
                self._pending[number] = update
            self._lock.notify()

    def reconcile(
        self, finished: Mapping[int, Callable[[], Update]], wrong: Collection[int] = ()
    ) -> int:
        """Bring MLflow to agree with the finished trials; return how many were written anew.

        Args:
            finished: by trial number, what is to be written if the run is not as it should be.
            wrong: the numbers of those whose runs are known not to be.

        Raises:
            InputError: if MLflow went away meanwhile.
        """
        written = 0
        try:
            for run in list(self._children()):
                number = int(run.data.tags[_NUMBER])
                whole = number in finished and run.info.status != "RUNNING"
                if whole and number not in self._runs and number not in wrong:
                    self._runs[number] = run.info.run_id
                else:
                    self.client.delete_run(run.info.run_id)  # of a trial that did not end, or half
        except Exception as error:  # whatever a server that goes away makes of it
            raise _unreachable(self.uri, error) from None
        for number, update in finished.items():
            if number not in self._runs:
                self.update(number, update())
                written += 1
        return written

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

    def close(self, status: Status) -> bool:
        """End the study's run; return whether all is written, for the rest is left to the next time."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        self._thread.join(timeout=30)
        ended = not self._down and self.attempt(lambda: self.client.set_terminated(self.run_id, status))
        return ended and not (self._pending or self._writing)

    def answers(self) -> bool:
        """Return whether MLflow can be reached."""
        try:
            self.client.get_run(self.run_id)
        except Exception:  # whatever a server that is away makes of it
            return False
        return True

    @property
    def unwritten(self) -> int:
        """Of how many trials something is still to be written."""
        return len(self._pending)

    def attempt(self, write: Callable[[], Any]) -> bool:
        """Write something that is nice to have; return whether it went well."""
        try:
            self._guard()
            write()
        except Exception as error:
            self._warn(f"MLflow at {self.uri}: {in_a_line(error)}")
            return False
        return True

    def describe(self, markdown: str, metrics: Mapping[str, float]) -> None:
        """Write the study run's description, its report and its metrics."""
        markdown = redacted(markdown)
        self.client.set_tag(self.run_id, DESCRIPTION, markdown)
        self.client.log_text(self.run_id, markdown, "report.md")
        now = milliseconds()
        self.client.log_batch(
            self.run_id, metrics=[Metric(k, significant(v), now, 0) for k, v in metrics.items()]
        )

    def register(
        self,
        number: int,
        name: str,
        network: nn.Module,
        example: NDArray[Any],
        beside: Sequence[Path],
    ) -> str:
        """Log a network under a trial's run and register it with the alias `champion`.

        It is saved as an exported program, which loads without unpickling code and takes batches
        of any size.

        Args:
            number: of the trial.
            name: of the registered model, which is made if it is not there.
            network: in evaluation mode, on the CPU.
            example: a batch of raw inputs, of two samples or more.
            beside: further files to keep in the run's folder `champion`.

        Returns:
            The version of the registered model.
        """
        self._guard()
        with torch.no_grad():
            outputs = network(torch.from_numpy(example)).numpy()
        before, variable = mlflow.get_tracking_uri(), os.environ.get(_VARIABLE)
        mlflow.set_tracking_uri(self._store)
        try:
            with _quiet_registration():
                logged = Model.log(
                    artifact_path=None,
                    flavor=mlflow.pytorch,
                    name="champion",
                    run_id=self._runs[number],
                    registered_model_name=name,
                    pytorch_model=network,
                    serialization_format="pt2",
                    signature=infer_signature(example, outputs),
                    input_example=example,
                    # Without these MLflow spends seconds on finding out.
                    pip_requirements=[f"{p}=={version(p)}" for p in ("mlflow", "numpy", "torch")],
                )
        finally:
            mlflow.set_tracking_uri(before)  # which sets the variable as well
            os.environ.pop(_VARIABLE, None)
            if variable is not None:
                os.environ[_VARIABLE] = variable
        for path in beside:
            self.client.log_artifact(self._runs[number], str(path), "champion")
        registered = str(logged.registered_model_version)
        self.client.set_registered_model_alias(name, "champion", registered)
        return registered

    def describe_model(self, name: str, version: str, model: str, champion: str) -> None:
        """Write the pages of a registered model and of one of its versions, in Markdown."""
        self.client.update_registered_model(name, model)
        self.client.update_model_version(name, version, champion)

    def save_view(self, columns: Sequence[str], ascending: bool) -> None:
        """Give the experiment's runs table a view that shows scores and tricks, best first.

        The UI's own table shows no metric and no param, and begins with the name and the date of a
        run in any case. The tag is one that the UI writes itself when a view is shared; MLflow does
        not document it.
        """
        view = {
            "searchFilter": "",
            "orderByKey": f"metrics.`{RANKING}`",
            "orderByAsc": ascending,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": list(columns),
            "columnOrder": ["attributes.`Run Name`", "runDateAndNestInfo", *columns, "duration"],
            "columnWidths": _WIDTHS,
            "runsHiddenMode": "FIRST_10_RUNS",
        }
        packed = base64.b64encode(zlib.compress(json.dumps(view).encode())).decode()
        now = milliseconds()
        shared = {
            "name": "Trials",
            "createdAt": now,
            "updatedAt": now,
            "state": f"deflate;{packed}",
        }
        self.client.set_experiment_tag(
            self.experiment_id, "mlflow.sharedViewState.trials", json.dumps(shared)
        )

    @property
    def link(self) -> str:
        """The page of that view, below the address of a server."""
        return (
            f"#/experiments/{self.experiment_id}/runs"
            "?workflowType=machine_learning&viewStateShareKey=trials"
        )

    def sweep(self) -> None:
        """Remove what is of an earlier write of this study.

        Raises:
            InputError: if MLflow went away meanwhile.
        """
        self._guard()
        sweep(self.uri, self.name, self.run_id)

    def champion(self) -> str | None:
        """Return the version of the registered model that is the champion; None if there is none."""
        return _champion(self.client, self.name)

    def run_of(self, number: int) -> str | None:
        """Return the id of a trial's run."""
        return self._runs.get(number)

    def _exists(self, run_id: str) -> bool:
        try:
            return str(self.client.get_run(run_id).info.lifecycle_stage) == "active"
        except mlflow.MlflowException:
            return False

    def _children(self) -> Iterable[Run]:
        return _children(self.client, self.experiment_id, self.run_id)

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
                if self._closing and self._down:
                    return
                if self._down:
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
        if self._down:
            self._down = False
            self._warn(f"MLflow at {self.uri} is back")

    def _lose(self, error: Exception) -> None:
        if not self._down:
            self._warn(
                f"MLflow at {self.uri} does not answer ({in_a_line(error)}); "
                "training goes on, and what is missing is written when it is back"
            )
        self._down = True

    def _apply(self, number: int, update: Update) -> None:
        """Write one trial's update; doing it twice does no harm."""
        if update.gone:
            if run_id := self._runs.get(number):
                self.client.delete_run(run_id)
                del self._runs[number]
            return
        tags = [RunTag(k, v) for k, v in update.tags.items()]
        run_id = self._runs.get(number)
        if run_id is None:
            run_id = self._runs[number] = self._create(number, update)
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
        place = get_artifact_repository(self._places[run_id], tracking_uri=self._store)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in artifacts.items():
                text = content if isinstance(content, str) else json.dumps(content, indent=2)
                path = Path(folder, name)
                path.write_text(text, encoding="utf-8")
                place.log_artifact(str(path))  # type: ignore[no-untyped-call]

    def _create(self, number: int, update: Update) -> str:
        if self._down:  # the answer to an earlier attempt may have been lost on the way
            for run in self._children():
                if run.data.tags.get(_NUMBER) == str(number):
                    self.client.delete_run(run.info.run_id)
        tags = {**update.tags, **_SOURCE, _PARENT: self.run_id, _NUMBER: str(number)}
        run = self.client.create_run(
            self.experiment_id,
            start_time=update.start,
            tags=tags,
            run_name=tags.get(NAME, run_name(number)),
        )
        self._places = {run.info.run_id: run.info.artifact_uri}  # the last one is enough
        return str(run.info.run_id)


@dataclass(frozen=True)
class Recorded:
    """What MLflow shows of a trial."""

    number: int
    status: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    """The last value of each."""


@dataclass(frozen=True)
class Holdings:
    """What MLflow holds under the name of a study."""

    whole: bool
    """Whether the study's run is there."""
    trials: list[Recorded]
    """Those of the study's run."""
    strays: list[str]
    """The ids of runs of an earlier write: of another run of the study, or that one itself."""
    stray_versions: list[str]
    """The versions of the registered model whose run is not one of the study's."""
    champion: str | None
    """The version that has the alias `champion`."""


def holdings(uri: str, name: str, run_id: str | None) -> Holdings:
    """Return what MLflow holds of a study, without changing anything.

    Args:
        uri: anything MLflow takes as a tracking URI.
        name: of the study.
        run_id: of the study's run; None if Optuna knows of none.

    Raises:
        InputError: if MLflow cannot be reached.
    """
    if uri.startswith(_SQLITE) and not _file(uri).exists():
        raise InputError(f"there is no MLflow at {uri}")
    with _told(uri):
        return _holdings(_client(uri), name, run_id)


def sweep(uri: str, name: str, run_id: str | None) -> None:
    """Remove the runs and model versions of a study that are of an earlier write.

    Raises:
        InputError: if MLflow cannot be reached.
    """
    with _told(uri):
        client = _client(uri)
        found = _holdings(client, name, run_id)
        for version_number in found.stray_versions:
            client.delete_model_version(name, version_number)
        for stray in found.strays:
            client.delete_run(stray)


def tracking_file(uri: str) -> Path | None:
    """Return the file of a tracking URI; None if it is no SQLite database."""
    return _file(uri) if uri.startswith(_SQLITE) else None


def check_tracking(uri: str, experiment: str) -> None:
    """Look whether MLflow can be opened and would take an experiment; make nothing.

    Raises:
        InputError: if it cannot, or the experiment was deleted.
    """
    with _told(uri):
        _check_uri(uri)
        if not uri.startswith(_SQLITE) or _file(uri).exists():  # a client would make the file
            _experiment(_client(uri), experiment, uri)


def _experiment(client: MlflowClient, name: str, uri: str) -> str | None:
    """Return the id of an experiment, None if there is none of this name."""
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage != "active":
        where = shlex.quote(redacted(uri, whole=True))
        raise InputError(
            f"the MLflow experiment {name!r} was deleted: restore it with `MLFLOW_TRACKING_URI={where} "
            f"mlflow experiments restore --experiment-id {found.experiment_id}`, or choose another "
            "--study-name"
        )
    return None if found is None else str(found.experiment_id)


@contextlib.contextmanager
def _told(uri: str) -> Iterator[None]:
    """Tell whatever MLflow, SQLAlchemy and requests raise in one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise _unreachable(uri, error) from None


def _holdings(client: MlflowClient, name: str, run_id: str | None) -> Holdings:
    experiment = client.get_experiment_by_name(name)
    runs = [] if experiment is None else list(_search(client, experiment.experiment_id, ""))
    own = {run.info.run_id for run in runs if run.data.tags.get(_PARENT, run.info.run_id) == run_id}
    ours = [run for run in runs if _NUMBER in run.data.tags or run.data.tags.get("study") == name]
    versions = client.search_model_versions(f"name='{name}'")
    return Holdings(
        whole=run_id in own,
        trials=[_recorded(run) for run in ours if run.info.run_id in own and _NUMBER in run.data.tags],
        strays=[run.info.run_id for run in ours if run.info.run_id not in own],
        stray_versions=[str(v.version) for v in versions if v.run_id not in own],
        champion=_champion(client, name),
    )


def _champion(client: MlflowClient, name: str) -> str | None:
    try:
        return str(client.get_model_version_by_alias(name, "champion").version)
    except mlflow.MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _recorded(run: Run) -> Recorded:
    return Recorded(
        number=int(run.data.tags[_NUMBER]),
        status=run.info.status,
        params=run.data.params,
        tags=run.data.tags,
        metrics=run.data.metrics,
    )


def _client(uri: str) -> MlflowClient:
    """Return a client; a server may still turn out to be away.

    Raises:
        InputError: if the URI cannot be one, or no server answers soon.
    """
    # MLflow's own retries block a call for minutes; the tracker tries again by itself.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong is told in a line of ours
    _check_uri(uri)
    return MlflowClient(tracking_uri=_absolute(uri))


def _check_uri(uri: str) -> None:
    if not uri or any(space in uri for space in "\n\r"):
        raise InputError(f"the tracking URI must be one line of text (got {uri!r})")
    check_url(uri)
    file = _file(uri)
    if uri.startswith(_SQLITE) and not (file.parent.is_dir() and not file.is_dir()):
        raise InputError(
            f"MLflow cannot be opened at {uri}: must be the path of a file in a folder that is there"
        )
    _knock(uri)


def _make_database(uri: str) -> None:
    """Make a SQLite database for MLflow in one piece: one that was half made is refused for ever."""
    if not uri.startswith(_SQLITE) or uri.endswith(":memory:") or _file(uri).exists():
        return
    file = _file(uri)
    _check_uri(uri)
    part = file.with_name(f"{file.name}.{secrets.token_hex(8)}.part")
    try:
        _client(f"{_SQLITE}{part}").search_experiments(max_results=1)
        if not file.exists():  # another study may have made it meanwhile
            part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _knock(uri: str) -> None:
    """Refuse a server that is down, or does not answer: MLflow would try again for minutes.

    Raises:
        OSError, SQLAlchemyError: if none answers soon; of MLflow's own servers any answer will do.
    """
    parts = urlsplit(uri)
    if parts.scheme.partition("+")[0] in _DATABASES:
        os.environ.setdefault("PGCONNECT_TIMEOUT", f"{ANSWER_SECONDS:.0f}")
        engine = sqlalchemy.create_engine(uri)
        engine.connect().close()
        engine.dispose()
    if parts.scheme not in ("http", "https"):
        return
    place = parts._replace(
        netloc=parts.netloc.rpartition("@")[2], path=f"{parts.path.rstrip('/')}/health"
    )
    try:
        urlopen(urlunsplit(place), timeout=ANSWER_SECONDS).close()
    except HTTPError:
        return
    except URLError as error:
        if isinstance(error.reason, ssl.SSLError):  # MLflow may be told to trust it
            return
        raise OSError(str(error.reason)) from None


def _unreachable(uri: str, error: Exception) -> InputError:
    shown = redacted(uri, whole=True)
    if locked(error):
        return InputError(
            f"the MLflow database {shown} is locked by another program that writes to it: wait for that "
            "to end, or end it"
        )
    return InputError(
        f"MLflow cannot be opened: {in_a_line(error)} (got {shown}); start the server, or give "
        "another tracking URI"
    )


def _children(client: MlflowClient, experiment_id: str, run_id: str) -> Iterable[Run]:
    """Walk the runs of a study's trials."""
    return _search(client, experiment_id, f"tags.`{_PARENT}` = '{run_id}'")


def _search(client: MlflowClient, experiment_id: str, condition: str) -> Iterable[Run]:
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment_id],
            filter_string=condition,
            max_results=1000,
            page_token=token,
        )
        yield from page
        if not (token := page.token):
            return


def milliseconds(seconds: float | None = None) -> int:
    """Return a time, by default now, in milliseconds since the epoch."""
    return int(1000 * (time.time() if seconds is None else seconds))


def significant(value: float) -> float:
    """Round to five significant digits: the UI's cells show about ten characters."""
    return float(f"{value:.5g}")


def metrics_at(step: int, values: Mapping[str, float], when: int) -> list[Metric]:
    """Return the metrics of one epoch.

    Args:
        step: the number of the epoch.
        values: by name.
        when: milliseconds since the epoch.
    """
    return [Metric(name, significant(value), when, step) for name, value in values.items()]


def ranking(score: float, *, first: bool, maximize: bool, when: int) -> Metric:
    """Return the metric by which the table of trials is sorted.

    It is the score as shown. MLflow sorts by one column, and puts the latest of equals first: the
    champion's is the next number that is better.

    Args:
        score: of a trial that used its whole budget; the others come behind.
        first: whether the trial is the champion.
        maximize: whether more is better.
        when: milliseconds since the epoch.
    """
    value = significant(score)
    better = math.inf if maximize else -math.inf
    return Metric(RANKING, math.nextafter(value, better) if first else value, when, 0)


def run_name(number: int, role: str = "") -> str:
    """Name the run of a trial."""
    return f"{number:03d} · {role}" if role else f"{number:03d}"


def shown(value: Any) -> str:
    """Write a hyperparameter as a param of a run."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def how_to_look(uri: str, link: str) -> str:
    """Say how to open the UI.

    Args:
        uri: the tracking URI.
        link: the path of the page, as `Tracker.link` returns it.
    """
    uri = redacted(uri, whole=True)
    if urlsplit(uri).scheme in ("http", "https"):
        return f"Look at the trials:  {uri.rstrip('/')}/{link}"
    return (
        f"Look at the trials:  mlflow ui --backend-store-uri {shlex.quote(uri)}\n"
        f"                     http://127.0.0.1:5000/{link}"
    )


def _absolute(uri: str) -> str:
    """Name a SQLite file by its whole path: MLflow keeps stores by name, wherever that led to."""
    if not uri.startswith(_SQLITE) or uri.endswith(":memory:"):
        return uri
    return _SQLITE + str(_file(uri))


def _file(uri: str) -> Path:
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]).absolute()


@contextlib.contextmanager
def _quiet_registration() -> Iterator[None]:
    """Keep MLflow from telling, on both streams, what the caller tells in its own words."""
    with (
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def _chunks(items: list[Any], size: int) -> list[list[Any]]:
    """Split a list into pieces; an empty one into one empty piece."""
    return [items[at : at + size] for at in range(0, len(items), size)] or [[]]
