"""A client of MLflow, once it is known that somebody answers."""

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
"""A server that does not answer by then, when a study begins, is taken for none."""
_FOR_GOOD = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "MALFORMED_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}
"""Errors of MLflow about what it is asked to write."""
_DATABASES = ("postgresql", "mysql", "mssql")


def check_tracking(uri: str, experiment: str) -> None:
    """Look whether MLflow can be opened and would take an experiment; make nothing.

    Raises:
        InputError: if it cannot, or the experiment was deleted.
    """
    with one_line_errors(uri):
        _check_uri(uri)
        if not uri.startswith(SQLITE) or file_of(uri).exists():  # a client would make the file
            experiment_id(connect(uri), experiment, uri)


def experiment_id(client: MlflowClient, name: str, uri: str) -> str | None:
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
def one_line_errors(uri: str) -> Iterator[None]:
    """Tell whatever MLflow, SQLAlchemy and requests raise in one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise unreachable(uri, error) from None


def connect(uri: str) -> MlflowClient:
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
    file = file_of(uri)
    if uri.startswith(SQLITE) and not (file.parent.is_dir() and not file.is_dir()):
        raise InputError(
            f"MLflow cannot be opened at {uri}: must be the path of a file in a folder that is there"
        )
    _probe(uri)


def make_database(uri: str) -> None:
    """Make a SQLite database for MLflow in one piece: one that was half made is refused for ever."""
    if not uri.startswith(SQLITE) or uri.endswith(":memory:") or file_of(uri).exists():
        return
    file = file_of(uri)
    _check_uri(uri)
    part = file.with_name(f"{file.name}.{secrets.token_hex(8)}.part")
    try:
        connect(f"{SQLITE}{part}").search_experiments(max_results=1)
        if not file.exists():  # another study may have made it meanwhile
            part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _probe(uri: str) -> None:
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


def unreachable(uri: str, error: Exception) -> InputError:
    """Say that MLflow cannot be opened, and what to do."""
    shown = redacted(uri, whole=True)
    if locked(error):
        return InputError(
            f"the MLflow database {shown} is locked by another program that writes to it: wait for that "
            "to end, or end it"
        )
    return InputError(
        f"MLflow cannot be opened: {one_line(error)} (got {shown}); start the server, or give "
        "another tracking URI"
    )


def refused_for_good(error: Exception) -> bool:
    """Tell whether MLflow answered, and will not take the same another time either."""
    return isinstance(error, MlflowException) and error.error_code in _FOR_GOOD


def search_runs(client: MlflowClient, experiment_id: str, condition: str) -> Iterable[Run]:
    """Walk the runs of an experiment that meet a condition, page by page."""
    ask = partial(client.search_runs, [experiment_id], filter_string=condition, max_results=1000)
    return pages(ask)


def pages(ask: Callable[..., PagedList[Item]]) -> Iterator[Item]:
    """Walk all that MLflow answers to a question, which it does in pages."""
    token: str | None = None
    while True:
        page = ask(page_token=token)
        yield from page
        if not (token := page.token):
            return


def _absolute(uri: str) -> str:
    """Name a SQLite file by its whole path: MLflow keeps stores by name, wherever that led to."""
    if not uri.startswith(SQLITE) or uri.endswith(":memory:"):
        return uri
    return SQLITE + str(file_of(uri))
