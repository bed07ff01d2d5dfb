"""The table of trials in MLflow's UI, and how to open it."""

import base64
import json
import shlex
import socket
import zlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from mlflow.tracking import MlflowClient

from lightning_tricks.redaction import redacted
from lightning_tricks.space.space import Space
from lightning_tricks.task.task import Task
from lightning_tricks.tracking.format import RANKING, milliseconds
from lightning_tricks.tracking.holdings import PARENT

WIDTHS = {
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
_PORT = 5000
"""At which `mlflow ui` listens unless told otherwise."""
_WORKFLOW = "workflowType=machine_learning"
"""Without it MLflow shows its pages for language models."""


def columns(task: Task, space: Space[Any]) -> list[str]:
    """Return the columns of the table of trials, in MLflow's names: what the trials may differ in."""
    searched = {path.partition(".")[0] for path in space.searched()}
    first = ("optimizer", "normalization")
    stages = [name for name in task.tricks.model_fields if name not in first and name in searched]
    return [
        "tags.`role`",
        *(f"params.`{name}`" for name in first),
        "metrics.`objective`",
        "metrics.`gradient/first_to_last`",
        "tags.`reason`",
        *(f"params.`{name}`" for name in ("optimizer.lr", *stages)),
        "metrics.`seconds`",
        "metrics.`parameters_per_sample`",
        "tags.`tricks`",
    ]


def save_view(
    client: MlflowClient, experiment_id: str, run_id: str, columns: Sequence[str], ascending: bool
) -> None:
    """Give an experiment's runs table a view that shows the search's scores and tricks, best first.

    The UI's own table shows no metric and no param, and begins with the name and the date of a
    run in any case. The tag is one that the UI writes itself when a view is shared; MLflow does
    not document it.

    Args:
        client: of MLflow.
        experiment_id: of the experiment.
        run_id: of the study: its trials are shown, those of its verdict are not.
        columns: by the names that the UI has for them, in their order.
        ascending: whether the lowest score comes first.
    """
    view = {
        "searchFilter": f"tags.`{PARENT}` = '{run_id}'",
        "orderByKey": f"metrics.`{RANKING}`",
        "orderByAsc": ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(columns),
        "columnOrder": ["attributes.`Run Name`", "runDateAndNestInfo", *columns, "duration"],
        "columnWidths": WIDTHS,
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
    client.set_experiment_tag(experiment_id, "mlflow.sharedViewState.trials", json.dumps(shared))


def link(experiment_id: str) -> str:
    """Return the page of that view, below the address of a server."""
    return f"#/experiments/{experiment_id}/runs?{_WORKFLOW}&viewStateShareKey=trials"


def run_page(experiment_id: str, run_id: str) -> str:
    """Return the page of a run, relative to any other."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?{_WORKFLOW}"


def artifact_page(experiment_id: str, run_id: str, artifact: str) -> str:
    """Return the page that shows an artifact of a run, relative to any other."""
    return f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/{artifact}"


def model_page(name: str, version: str) -> str:
    """Return the page of a version of a registered model, relative to any other."""
    return f"#/models/{quote(name, safe='')}/versions/{version}"


def how_to_look(uri: str, link: str) -> str:
    """Say how to open the UI.

    Args:
        uri: the tracking URI.
        link: the path of the page, as `link` returns it.
    """
    uri = redacted(uri, whole=True)
    if urlsplit(uri).scheme in ("http", "https"):
        return f"Look at the trials:  {uri.rstrip('/')}/{link}"
    port = _free_port()
    option = "" if port == _PORT else f" --port {port}"
    return (
        f"Look at the trials:  mlflow ui --backend-store-uri {shlex.quote(uri)}{option}\n"
        f"                     http://127.0.0.1:{port}/{link}"
    )


def _free_port() -> int:
    """Return the first port from MLflow's own on at which nobody listens."""
    for port in range(_PORT, _PORT + 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    return _PORT
