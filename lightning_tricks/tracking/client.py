"""An MLflow client, opened only if the server or file can be reached."""

import contextlib
import logging
import os
import secrets
import shlex
import ssl
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

import mlflow
import sqlalchemy
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList
from mlflow.tracking import MlflowClient

from lightning_tricks.errors import InputError, check_url, locked, one_line
from lightning_tricks.redaction import redacted
from lightning_tricks.tracking.addresses import SQLITE, file_of

Item = TypeVar("Item")
ANSWER_SECONDS = 5.0
"""Timeout in seconds for a server's answer when a study begins."""
_FOR_GOOD = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "MALFORMED_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}
"""MLflow's error codes for requests that it will never accept."""
_DATABASES = ("postgresql", "mysql", "mssql")


def check_tracking(uri: str, experiment: str) -> None:
    """Check that MLflow can be opened and the experiment used, without making anything.

    Raises:
        InputError: if MLflow cannot be opened, or the experiment was deleted.
    """
    with one_line_errors(uri):
        _check_uri(uri)
        if not uri.startswith(SQLITE) or file_of(uri).exists():  # a client would make the file
            experiment_id(connect(uri), experiment, uri)


def experiment_id(client: MlflowClient, name: str, uri: str) -> str | None:
    """Return an experiment's id; None if there is none of this name."""
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
def one_line_errors(uri: str) -> Iterator[None]:
    """Turn any error of MLflow, SQLAlchemy or requests into an InputError of one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise unreachable(uri, error) from None


def connect(uri: str) -> MlflowClient:
    """Return a client; the server may still go away later.

    Raises:
        InputError: if the URI is not valid.
        OSError, SQLAlchemyError: if no server answers soon.
    """
    # MLflow's own retries block a call for minutes; the tracker retries by itself.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # we print our own line for each error
    _check_uri(uri)
    return MlflowClient(tracking_uri=_absolute(uri))


def reach(uri: str | None) -> MlflowClient:
    """Return a client of a server that answers.

    Args:
        uri: anything MLflow takes; None for MLflow's own setting.

    Raises:
        InputError: if the URI is not valid, or no server answers.
    """
    uri = uri or mlflow.get_tracking_uri()
    with one_line_errors(uri):
        return connect(uri)


def _check_uri(uri: str) -> None:
    if not uri or any(space in uri for space in "\n\r"):
        raise InputError(f"the tracking URI must be one line of text (got {uri!r})")
    check_url(uri)
    file = file_of(uri)
    if uri.startswith(SQLITE) and not (file.parent.is_dir() and not file.is_dir()):
        raise InputError(
            f"MLflow cannot be opened at {uri}: it must be the path of a file in an existing folder"
        )
    _probe(uri)


def make_database(uri: str) -> None:
    """Make a SQLite database for MLflow in one step: MLflow never accepts a half-made one."""
    if not uri.startswith(SQLITE) or uri.endswith(":memory:") or file_of(uri).exists():
        return
    file = file_of(uri)
    _check_uri(uri)
    part = file.with_name(f"{file.name}.{secrets.token_hex(8)}.part")
    try:
        connect(f"{SQLITE}{part}").search_experiments(max_results=1)
        if not file.exists():  # another study may have made it in the meantime
            part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _probe(uri: str) -> None:
    """Check that a server answers; MLflow itself would retry for minutes.

    Raises:
        OSError, SQLAlchemyError: if it does not answer soon; from an MLflow server, any answer counts.
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
        if isinstance(error.reason, ssl.SSLError):  # MLflow may be configured to trust it
            return
        raise OSError(str(error.reason)) from None


def unreachable(uri: str, error: Exception) -> InputError:
    """Return the error for an MLflow that cannot be opened; says why, and what to do."""
    shown = redacted(uri, whole=True)
    if locked(error):
        return InputError(
            f"the MLflow database {shown} is locked by another program that writes to it: wait for that "
            "program, or stop it"
        )
    return InputError(
        f"MLflow cannot be opened: {one_line(error)} (got {shown}); start the server, or give "
        "another tracking URI"
    )


def refused_for_good(error: Exception) -> bool:
    """Return whether MLflow refused a request that it would refuse again."""
    return isinstance(error, MlflowException) and error.error_code in _FOR_GOOD


def active_run(client: MlflowClient, run_id: str) -> Run | None:
    """Return a run; None if it does not exist or was deleted."""
    try:
        found = client.get_run(run_id)
    except mlflow.MlflowException:
        return None
    return found if str(found.info.lifecycle_stage) == "active" else None


def experiments_of(client: MlflowClient, name: str, run_id: str | None) -> list[str]:
    """Return the ids of the experiments with a study's runs: of its name, and one that was renamed.

    Args:
        client: the MLflow client.
        name: the study's name.
        run_id: id of the study's run; None if Optuna knows of none.
    """
    named = client.get_experiment_by_name(name)
    held = None if run_id is None else active_run(client, run_id)
    ids = [] if named is None else [str(named.experiment_id)]
    if held is not None and held.info.experiment_id not in ids:
        ids.append(str(held.info.experiment_id))
    return ids


def search_runs(client: MlflowClient, experiment_ids: list[str], condition: str) -> Iterable[Run]:
    """Yield the runs of some experiments that meet a condition."""
    ask = partial(client.search_runs, experiment_ids, filter_string=condition, max_results=1000)
    return pages(ask)


def pages(ask: Callable[..., PagedList[Item]]) -> Iterator[Item]:
    """Yield the items of all pages of an answer of MLflow."""
    token: str | None = None
    while True:
        page = ask(page_token=token)
        yield from page
        if not (token := page.token):
            return


def _absolute(uri: str) -> str:
    """Return a SQLite URI with an absolute path: MLflow caches stores by URI, whatever the folder."""
    if not uri.startswith(SQLITE) or uri.endswith(":memory:"):
        return uri
    return SQLITE + str(file_of(uri))
