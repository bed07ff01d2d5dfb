"""Read recipes from MLflow, for projects that do not run studies."""

import json
import tempfile

import mlflow
from mlflow.tracking import MlflowClient

from lightning_tricks.errors import InputError, one_line
from lightning_tricks.process import unchanged
from lightning_tricks.search.archive import CHAMPION
from lightning_tricks.tracking.artifacts import fetch
from lightning_tricks.tracking.client import reach
from lightning_tricks.tracking.format import RECIPE_TYPE
from lightning_tricks.tricks.recipe import Tricks
from lightning_tricks.tricks.recipe_types import recipe_of

RECIPE = "tricks.json"
"""Artifact of a trial's run: its recipe."""


@unchanged()
def recipe_of_run(run_id: str, tracking_uri: str | None = None) -> Tricks:
    """Return a trial's recipe, with the type that the study's task gave it.

    Args:
        run_id: id of the trial's run in MLflow.
        tracking_uri: anything MLflow takes; by default MLflow's own setting.

    Raises:
        InputError: if there is no such run, it holds no recipe, or the recipe's type is a class of
            yours that is not imported.
    """
    return _read(reach(tracking_uri), run_id)


@unchanged()
def recipe_of_champion(study: str, tracking_uri: str | None = None, alias: str = CHAMPION) -> Tricks:
    """Return the recipe of a study's champion: the baseline, unless a gain was confirmed.

    Args:
        study: the study's name, which is also the registered model's.
        tracking_uri: anything MLflow takes; by default MLflow's own setting.
        alias: alias of the version; `best` for the best trial of a search without a verdict.

    Raises:
        InputError: as `recipe_of_run`, or if no such model is registered.
    """
    client = reach(tracking_uri)
    try:
        run_id = client.get_model_version_by_alias(study, alias).run_id
    except mlflow.MlflowException as error:
        hint = "; a search without a verdict has the alias `best`" if alias == CHAMPION else ""
        raise InputError(f"no model {study}@{alias} is registered: {one_line(error)}{hint}") from None
    return _read(client, str(run_id))


def _read(client: MlflowClient, run_id: str) -> Tricks:
    try:
        kind = client.get_run(run_id).data.tags.get(RECIPE_TYPE, "")
        with tempfile.TemporaryDirectory() as folder:
            data = json.loads(fetch(client, run_id, RECIPE, folder).read_text(encoding="utf-8"))
    except (mlflow.MlflowException, OSError, ValueError) as error:
        raise InputError(f"run {run_id} holds no recipe: {one_line(error)}") from None
    return recipe_of(data, kind)
