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
from lightning_tricks.tracking.names import key_of

WIDTHS = {
    "attributes.`Run Name`": 180,
    "runDateAndNestInfo": 150,
    "tags.`role`": 110,
    "params.`optimizer`": 110,
    "params.`normalization`": 110,
    "metrics.`objective`": 100,
    "metrics.`weights/first_to_last`": 170,
    "tags.`reason`": 260,
}
"""Column widths in pixels, by the UI's column names."""
_PORT = 5000
"""Default port of `mlflow ui`."""
_WORKFLOW = "workflowType=machine_learning"
"""Query without which MLflow shows its pages for language models."""


def columns(task: Task, space: Space[Any]) -> list[str]:
    """Return the columns of the table of trials, by MLflow's names; only searched stages get one."""
    searched = {path.partition(".")[0] for path in space.searched()}
    first = ("optimizer", "normalization")
    stages = [name for name in task.tricks.model_fields if name not in first and name in searched]
    return [
        "tags.`role`",
        *(f"params.`{name}`" for name in first),
        "metrics.`objective`",
        "metrics.`weights/first_to_last`",
        "tags.`reason`",
        *(f"params.`{name}`" for name in ("optimizer.lr", *stages)),
        "metrics.`seconds`",
        "metrics.`parameters_per_sample`",
        "tags.`tricks`",
    ]


def _charts(monitor: str) -> dict[str, Any]:
    """Return the part of a view that puts charts of the score before all others."""
    common = {"metricSectionId": "score", "isGenerated": False, "deleted": False}
    key = key_of(monitor)
    by_epoch = {
        **common,
        "uuid": "by-epoch",
        "type": "LINE",
        "metricKey": key,
        "selectedMetricKeys": [key],
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "lineSmoothness": 0,
    }
    at_the_end = {**common, "uuid": "objective", "type": "BAR", "metricKey": "objective"}
    section = {"uuid": "score", "name": "score", "display": True, "isReordered": True, "columns": 2}
    return {
        "compareRunCharts": [by_epoch, at_the_end],
        "compareRunSections": [section],
        "isAccordionReordered": True,
    }


def save_view(
    client: MlflowClient, experiment_id: str, run_id: str, columns: Sequence[str], task: Task
) -> None:
    """Save a view of an experiment's runs table that shows the search's scores and tricks, best first.

    The UI's default table shows no metrics and no params, and its charts are sorted by name. Any table
    begins with the run's name and date. The UI itself writes this tag when a user shares a view; MLflow
    does not document it.

    Args:
        client: the MLflow client.
        experiment_id: the experiment's id.
        run_id: id of the search's run: only its trials are shown, not those of its verdict.
        columns: the columns in order, by the UI's names.
        task: the study's task.
    """
    view = {
        "searchFilter": f"tags.`{PARENT}` = '{run_id}'",
        "orderByKey": f"metrics.`{RANKING}`",
        "orderByAsc": task.mode == "min",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(columns),
        "columnOrder": ["attributes.`Run Name`", "runDateAndNestInfo", *columns, "duration"],
        "columnWidths": WIDTHS,
        "runsHiddenMode": "FIRST_10_RUNS",
        **_charts(task.monitor),
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
    """Return the page of the saved view, relative to the server's address."""
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


def how_to_look(uri: str, link: str, report: str = "") -> str:
    """Return a message that says how to open the UI.

    Args:
        uri: the tracking URI.
        link: the path of the page, from `link`.
        report: the path of the report's page; empty if there is no report.
    """
    uri = redacted(uri, whole=True)
    pages = {"Look at the trials:": link, "Read the report:": report}
    if urlsplit(uri).scheme in ("http", "https"):
        base, lines = uri.rstrip("/"), []
    else:
        port = _free_port()
        option = "" if port == _PORT else f" --port {port}"
        base = f"http://127.0.0.1:{port}"
        lines = [f"{'Start MLflow:':20} mlflow ui --backend-store-uri {shlex.quote(uri)}{option}"]
    return "\n".join([*lines, *(f"{what:20} {base}/{page}" for what, page in pages.items() if page)])


def _free_port() -> int:
    """Return the first port from MLflow's own on at which nobody listens."""
    for port in range(_PORT, _PORT + 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    return _PORT
