"""Registered models in MLflow: a study's champion, or a search's best trial."""

import contextlib
import io
import json
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import torch
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model, infer_signature
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from lightning_tricks.module.ensemble import Answering
from lightning_tricks.tracking.artifacts import repository, sizes_of
from lightning_tricks.tracking.client import pages

FILES, CONTENTS, TRIALS = "files", "contents", "trials"
"""Tags of a version: the folder of its run with the files, their sizes by path, and its trials."""
STUDY = "study"
"""Tag of an exported network: its study."""
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
"""MLflow's error codes for something that does not exist."""
NETWORK, NETWORK_CONTENTS = "network", "network_contents"
"""Tags of a version: the id of its exported network, and the sizes of its files by path."""


@dataclass(frozen=True)
class Registration:
    """A model to register.

    Its trials identify a version: registering the same trials twice makes one version.
    """

    name: str
    """Name of the registered model, and of the study."""
    alias: str
    """Alias of the version."""
    run_id: str
    """Id of the run that holds the files."""
    trials: tuple[int, ...]
    """Numbers of the trials that trained the models."""
    shown_by: str = ""
    """Id of the study's run, whose page shows the model too; empty for none."""

    def is_of(self, found: ModelVersion) -> bool:
        """Return whether a version belongs to these trials."""
        tags = (found.tags.get(FILES), found.tags.get(TRIALS))
        return found.run_id == self.run_id and tags == (self.alias, self.label)

    @property
    def label(self) -> str:
        """Trial numbers, as the value of a tag."""
        return ",".join(map(str, self.trials))


def register(
    client: MlflowClient, wanted: Registration, files: Sequence[Path], answering: Answering | None
) -> tuple[str, bool]:
    """Register a model with an alias: its files and, if possible, an exported network.

    The network is saved as an exported program, which loads without unpickling code and takes batches
    of any size. An existing version of the same trials gets its missing files back.

    Args:
        client: the MLflow client.
        wanted: the model to register.
        files: the files that `load_with_tricks` reads, and further files to store with them.
        answering: the network; None if there is none.

    Returns:
        The version of the registered model, and whether its network was exported.
    """
    for path in files:
        client.log_artifact(wanted.run_id, str(path), wanted.alias)
    with tempfile.TemporaryDirectory() as place:
        network = Path(place, "model")
        exported = answering is not None and _export(answering, wanted.run_id, network)
        found = next((v for v in versions_of(client, wanted.name) if wanted.is_of(v)), None)
        if found is not None and _may_hold(client, found, exported):
            if (model_id := network_of(found)) is not None:
                client.log_model_artifacts(model_id, str(network))
            number = str(found.version)
        else:
            number = _make_version(client, wanted, network if exported else None)
        held = {f"{wanted.alias}/{path.name}": path for path in files}
        parts = {path.relative_to(network).as_posix(): path for path in network.rglob("*")}
        for tag, paths in {CONTENTS: held, NETWORK_CONTENTS: parts}.items():
            sizes = {name: path.stat().st_size for name, path in paths.items() if path.is_file()}
            client.set_model_version_tag(wanted.name, number, tag, json.dumps(sizes))
    client.set_registered_model_alias(wanted.name, wanted.alias, number)
    return number, exported


def _may_hold(client: MlflowClient, found: ModelVersion, exported: bool) -> bool:
    """Return whether a version can get its files again: both have an exported network, or neither."""
    return (network_of(found) is not None) == exported and not _lost(client, found)


def _export(answering: Answering, run_id: str, path: Path) -> bool:
    """Save a network as an exported program; return whether it could be exported."""
    network, example = answering
    try:
        with _quietly():
            with torch.no_grad():
                outputs = network(torch.from_numpy(example)).numpy()
            mlflow.pytorch.save_model(
                network,
                path,
                mlflow_model=Model(run_id=run_id),
                serialization_format="pt2",
                signature=infer_signature(example, outputs),
                input_example=example,
                # Otherwise MLflow spends seconds on finding them out.
                pip_requirements=[f"{p}=={version(p)}" for p in ("mlflow", "numpy", "torch")],
            )
    except Exception:  # the user's code may not be exportable
        return False
    return True


def _make_version(client: MlflowClient, wanted: Registration, network: Path | None) -> str:
    """Make a version of the logged files; return its number."""
    with contextlib.suppress(mlflow.MlflowException):  # it exists already
        client.create_registered_model(wanted.name)
    run = client.get_run(wanted.run_id).info
    source, model_id = f"{run.artifact_uri}/{wanted.alias}", None
    if network is not None:
        logged = client.create_logged_model(
            run.experiment_id, wanted.alias, wanted.run_id, tags={STUDY: wanted.name}
        )
        # Its location: MLflow would resolve `models:/…` at its own tracking URI.
        source, model_id = str(logged.artifact_location), str(logged.model_id)
        client.log_model_artifacts(model_id, str(network))
        client.finalize_logged_model(model_id, "READY")
        for run_id in filter(None, (wanted.run_id, wanted.shown_by)):
            client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])
    tags = {FILES: wanted.alias, TRIALS: wanted.label, NETWORK: model_id or ""}
    made = client.create_model_version(wanted.name, source, wanted.run_id, tags, model_id=model_id)
    number = str(made.version)
    if model_id is not None:  # pages of runs list the registered versions of their models by this tag
        listed = json.dumps([{"name": wanted.name, "version": number}])
        client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: listed})
    return number


def versions_of(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Return the versions of a registered model; empty if it does not exist."""
    return list(pages(partial(client.search_model_versions, f"name='{name}'")))


def network_of(found: ModelVersion) -> str | None:
    """Return the id of the exported network of a version; None if it has none."""
    return found.tags.get(NETWORK) or None


def remove_versions(client: MlflowClient, name: str, runs: Collection[str]) -> None:
    """Remove the versions of a registered model that belong to the given runs."""
    for found in versions_of(client, name) if runs else ():
        if found.run_id in runs:
            client.delete_model_version(name, found.version)
            if (model_id := network_of(found)) is not None:
                client.delete_logged_model(model_id)


def version_of(client: MlflowClient, name: str, alias: str) -> str | None:
    """Return the version of a registered model that has an alias; None if there is none."""
    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except mlflow.MlflowException as error:
        if error.error_code in _ABSENT:
            return None
        raise


def holds(client: MlflowClient, name: str, versions: Mapping[str, str]) -> bool:
    """Return whether the versions of a registered model (by alias) exist with all their files."""
    numbered = {str(found.version): found for found in versions_of(client, name)}
    return all(
        version_of(client, name, alias) == version
        and version in numbered
        and is_whole(client, numbered[version])
        for alias, version in versions.items()
    )


def is_whole(client: MlflowClient, found: ModelVersion) -> bool:
    """Return whether a version has all its files and its exported network, none of them cut short."""
    files, exported = (_kept_sizes(found, tag) for tag in (CONTENTS, NETWORK_CONTENTS))
    if files is None or exported is None or _lost(client, found):
        return False  # the program that made it died before all was there, or someone deleted it
    run = client.get_run(str(found.run_id)).info
    there = sizes_of(repository(client, run.artifact_uri).list_artifacts, found.tags.get(FILES))
    if not files.items() <= there.items():
        return False
    model_id = network_of(found)
    listed = None if model_id is None else partial(client.list_logged_model_artifacts, model_id)
    return listed is None or bool(exported.items() <= sizes_of(listed).items())


def _kept_sizes(found: ModelVersion, tag: str) -> dict[str, Any] | None:
    """Return the sizes that a tag of a version holds; None if it holds none."""
    try:
        kept = json.loads(found.tags.get(tag, ""))
    except ValueError:  # anyone may write tags
        return None
    return kept if isinstance(kept, dict) else None


def _lost(client: MlflowClient, found: ModelVersion) -> bool:
    """Return whether the exported network of a version was deleted."""
    try:
        if (model_id := network_of(found)) is not None:
            client.get_logged_model(model_id)
    except mlflow.MlflowException as error:
        if error.error_code in _ABSENT:
            return True
        raise
    return False


def stray_models(client: MlflowClient, experiment_ids: list[str], name: str) -> list[str]:
    """Return the ids of a study's exported networks that belong to no version."""
    known = {network_of(version) for version in versions_of(client, name)}
    found = pages(partial(client.search_logged_models, experiment_ids)) if experiment_ids else ()
    return [str(m.model_id) for m in found if m.tags.get(STUDY) == name and m.model_id not in known]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence MLflow's output and warnings: the caller reports in its own words."""
    with (
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
