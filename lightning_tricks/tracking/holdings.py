"""What MLflow holds of a study, and which of it comes from an earlier write."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from lightning_tricks.errors import InputError
from lightning_tricks.search.archive import BEST, CHAMPION
from lightning_tricks.search.keys import ENSEMBLE
from lightning_tricks.tracking.addresses import SQLITE, file_of
from lightning_tricks.tracking.artifacts import files_of
from lightning_tricks.tracking.client import connect, experiments_of, one_line_errors, search_runs
from lightning_tricks.tracking.registry import (
    is_whole,
    stray_models,
    version_of,
    versions_of,
)

PARENT = "mlflow.parentRunId"
NUMBER = "trial.number"


@dataclass(frozen=True)
class Recorded:
    """What MLflow shows of a trial."""

    number: int
    status: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    """Last value of each metric."""
    files: Callable[[], frozenset[str]]
    """Fetches the names of its artifacts."""


@dataclass(frozen=True)
class Holdings:
    """What MLflow holds under the name of a study."""

    whole: bool
    """Whether the study's run exists."""
    trials: list[Recorded]
    """Trials of the study's run."""
    strays: list[str]
    """Ids of runs from an earlier write: other study runs of this name, and their trials."""
    stray_versions: list[str]
    """Versions of the registered model whose run is not one of the study's."""
    stray_models: list[str]
    """Ids of the study's exported networks that belong to no version."""
    aliases: Mapping[str, str]
    """Versions of the registered model, by alias."""
    broken: Callable[[], frozenset[str]]
    """Fetches the versions with an alias that lack files."""
    files: Callable[[], frozenset[str]]
    """Fetches the names of the artifacts of the study's run."""


def holdings(uri: str, name: str, run_id: str | None, others: Collection[str] = ()) -> Holdings:
    """Return what MLflow holds of a study, without changing anything.

    Args:
        uri: anything MLflow takes as a tracking URI.
        name: the study's name.
        run_id: id of the run whose trials to read; None if Optuna knows of none.
        others: ids of the study's other runs: its search, verdict, ablation.

    Raises:
        InputError: if MLflow cannot be reached.
    """
    if uri.startswith(SQLITE) and not file_of(uri).exists():
        raise InputError(f"there is no MLflow at {uri}")
    with one_line_errors(uri):
        return _holdings(connect(uri), name, run_id, others)


def sweep(uri: str, name: str, run_id: str | None, others: Collection[str] = ()) -> None:
    """Remove the runs and model versions of a study that come from an earlier write.

    Raises:
        InputError: if MLflow cannot be reached.
    """
    with one_line_errors(uri):
        client = connect(uri)
        found = _holdings(client, name, run_id, others)
        for version_number in found.stray_versions:
            client.delete_model_version(name, version_number)
        for model in stray_models(client, experiments_of(client, name, run_id), name):
            client.delete_logged_model(model)
        for stray in found.strays:
            client.delete_run(stray)


def _holdings(client: MlflowClient, name: str, run_id: str | None, others: Collection[str]) -> Holdings:
    experiments = experiments_of(client, name, run_id)
    runs = list(search_runs(client, experiments, "")) if experiments else []
    parent = {run.info.run_id: run.data.tags.get(PARENT, run.info.run_id) for run in runs}
    asked = {run for run, above in parent.items() if above == run_id}
    own = asked | {run for run, above in parent.items() if above in others}
    ours = [run for run in runs if NUMBER in run.data.tags or run.data.tags.get("study") == name]
    versions = versions_of(client, name)
    aliases = {
        alias: number
        for alias in (CHAMPION, BEST, ENSEMBLE)
        if (number := version_of(client, name, alias)) is not None
    }
    return Holdings(
        whole=run_id in asked,
        trials=[
            _recorded(client, run)
            for run in ours
            if run.info.run_id in asked and NUMBER in run.data.tags
        ],
        strays=[run.info.run_id for run in ours if run.info.run_id not in own],
        stray_versions=[str(v.version) for v in versions if v.run_id not in own],
        stray_models=stray_models(client, experiments, name),
        aliases=aliases,
        broken=partial(_broken, client, [v for v in versions if str(v.version) in aliases.values()]),
        files=partial(_files, client, [run for run in runs if run.info.run_id == run_id]),
    )


def _files(client: MlflowClient, runs: Iterable[Run]) -> frozenset[str]:
    """Return the names of the runs' artifacts."""
    with one_line_errors(client.tracking_uri):
        return frozenset().union(*(files_of(client, run.info.artifact_uri) for run in runs))


def _broken(client: MlflowClient, versions: Iterable[ModelVersion]) -> frozenset[str]:
    """Return the versions that lack files."""
    with one_line_errors(client.tracking_uri):
        return frozenset(str(v.version) for v in versions if not is_whole(client, v))


def _recorded(client: MlflowClient, run: Run) -> Recorded:
    return Recorded(
        number=int(run.data.tags[NUMBER]),
        status=run.info.status,
        params=run.data.params,
        tags=run.data.tags,
        metrics=run.data.metrics,
        files=partial(_files, client, [run]),
    )


def children(client: MlflowClient, experiment_id: str, run_id: str) -> Iterable[Run]:
    """Yield the runs of a study's trials."""
    return search_runs(client, [experiment_id], f"tags.`{PARENT}` = '{run_id}'")
