"""Registered models: the champion of a study, or the best of a search."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import torch
from mlflow.models import Model, infer_signature
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray
from torch import nn

CHAMPION, BEST, ENSEMBLE = "champion", "best", "ensemble"
"""Aliases of versions: the recipe to use by a verdict, the best score of a search that has none, and the
champion's models of several seeds as one."""
_VARIABLE = "MLFLOW_TRACKING_URI"


def register(
    client: MlflowClient,
    run_id: str,
    name: str,
    network: nn.Module,
    example: NDArray[Any],
    beside: Sequence[Path],
    alias: str,
) -> str:
    """Log a network under a run and register it with an alias.

    It is saved as an exported program, which loads without unpickling code and takes batches of any
    size.

    Args:
        client: of MLflow.
        run_id: of the trial's run.
        name: of the registered model, which is made if it is not there.
        network: in evaluation mode, on the CPU.
        example: a batch of raw inputs, of two samples or more.
        beside: further files to keep in the run's folder of the alias.
        alias: of the version.

    Returns:
        The version of the registered model.
    """
    with torch.no_grad():
        outputs = network(torch.from_numpy(example)).numpy()
    with _tracking_uri(client.tracking_uri), _quietly():
        logged = Model.log(
            artifact_path=None,
            flavor=mlflow.pytorch,
            name=alias,
            run_id=run_id,
            registered_model_name=name,
            pytorch_model=network,
            serialization_format="pt2",
            signature=infer_signature(example, outputs),
            input_example=example,
            # Without these MLflow spends seconds on finding out.
            pip_requirements=[f"{p}=={version(p)}" for p in ("mlflow", "numpy", "torch")],
        )
    for path in beside:
        client.log_artifact(run_id, str(path), alias)
    registered = str(logged.registered_model_version)
    client.set_registered_model_alias(name, alias, registered)
    return registered


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
