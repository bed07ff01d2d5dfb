"""Registered models: the champion of a study, or the best of a search."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import torch
from mlflow.models import Model, ModelSignature, infer_signature
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray
from torch import nn

CHAMPION, BEST, ENSEMBLE = "champion", "best", "ensemble"
"""Aliases of versions: the recipe to use by a verdict, the best score of a search that has none, and the
champion's models of several seeds as one."""
_VARIABLE = "MLFLOW_TRACKING_URI"


class Answering(NamedTuple):
    """A network that answers by itself."""

    network: nn.Module
    """In evaluation mode, on the CPU."""
    example: NDArray[Any]
    """Raw inputs, of two samples or more."""


def register(
    client: MlflowClient,
    run_id: str,
    name: str,
    files: Sequence[Path],
    alias: str,
    answering: Answering | None,
) -> tuple[str, bool]:
    """Register a model with an alias: its files and, where that can be, a network that answers.

    The network is saved as an exported program, which loads without unpickling code and takes batches
    of any size.

    Args:
        client: of MLflow.
        run_id: of the trial's run.
        name: of the registered model, which is made if it is not there.
        files: what `load_with_tricks` reads, and whatever else is to lie beside it.
        alias: of the version.
        answering: the network; None if there is none.

    Returns:
        The version of the registered model, and whether its network was exported.
    """
    for path in files:
        client.log_artifact(run_id, str(path), alias)
    registered = None if answering is None else _export(client, run_id, name, answering, alias)
    exported = registered is not None
    if registered is None:
        registered = _register_files(client, run_id, name, alias)
    client.set_model_version_tag(name, registered, "files", alias)
    client.set_registered_model_alias(name, alias, registered)
    return registered, exported


def _export(
    client: MlflowClient, run_id: str, name: str, answering: Answering, alias: str
) -> str | None:
    """Log and register a network as an exported program; None if it cannot be exported."""
    network, example = answering
    try:
        with torch.no_grad():
            outputs = network(torch.from_numpy(example)).numpy()
        signature = infer_signature(example, outputs)
        torch.export.export(network, (torch.from_numpy(example),), strict=False)
    except Exception:  # the user's code may do anything that cannot be exported
        return None
    try:
        return _log(client, run_id, name, answering, alias, signature)
    except Exception:  # of MLflow's own export, or a server that went away
        client.get_run(run_id)
        return None


def _log(
    client: MlflowClient,
    run_id: str,
    name: str,
    answering: Answering,
    alias: str,
    signature: ModelSignature,
) -> str:
    with _tracking_uri(client.tracking_uri), _quietly():
        logged = Model.log(
            artifact_path=None,
            flavor=mlflow.pytorch,
            name=alias,
            run_id=run_id,
            registered_model_name=name,
            pytorch_model=answering.network,
            serialization_format="pt2",
            signature=signature,
            input_example=answering.example,
            # Without these MLflow spends seconds on finding out.
            pip_requirements=[f"{p}=={version(p)}" for p in ("mlflow", "numpy", "torch")],
        )
    return str(logged.registered_model_version)


def _register_files(client: MlflowClient, run_id: str, name: str, alias: str) -> str:
    """Register the files in a run's folder of an alias, without a network."""
    with contextlib.suppress(mlflow.MlflowException):  # it is there already
        client.create_registered_model(name)
    source = f"{client.get_run(run_id).info.artifact_uri}/{alias}"
    return str(client.create_model_version(name, source, run_id).version)


def version_of(client: MlflowClient, name: str, alias: str) -> str | None:
    """Return the version of a registered model that has an alias; None if there is none."""
    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except mlflow.MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


@contextlib.contextmanager
def _tracking_uri(uri: str) -> Iterator[None]:
    """Set MLflow's own for a while: its models are logged where that leads to."""
    before, variable = mlflow.get_tracking_uri(), os.environ.get(_VARIABLE)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # which sets the variable as well
        os.environ.pop(_VARIABLE, None)
        if variable is not None:
            os.environ[_VARIABLE] = variable


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep MLflow from telling, on both streams, what the caller tells in its own words."""
    with (
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
