"""`load_with_tricks`: a trained module brought back, from a checkpoint or from MLflow."""

import contextlib
import io
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
from torch import nn

from lightning_tricks.errors import InputError, one_line
from lightning_tricks.flavors import is_lightning_module
from lightning_tricks.module.kept import bring_back, load_checkpoint
from lightning_tricks.process import unchanged
from lightning_tricks.tracking.artifacts import fetch
from lightning_tricks.tracking.client import connect

_REGISTERED = re.compile(r"models:/(?P<name>[^@/]+)(@(?P<alias>[^@/]+)|/(?P<version>\d+))")


@unchanged()
def load_with_tricks(
    source: str | Path,
    module: nn.Module | Callable[[Any], nn.Module],
    *,
    member: int = 0,
    trusted: bool = False,
    tracking_uri: str | None = None,
) -> Any:
    """Load a module with the tricks that it was trained with, and its weights.

    The layers are changed as the recipe says; `YourModule.load_from_checkpoint` does not know them.
    `without_tricks` makes one of the user's class of what is returned.

    Args:
        source: `models:/NAME@champion`, a model that a study registered; or the folder that a study
            without MLflow put it into, such as `checkpoints/NAME/champion`; or the path of a checkpoint
            that a Trainer wrote for a module of `with_tricks`.
        module: a new one, made as the one that was trained. For a registered model that was no
            LightningModule, its backbone. Or a function of the recipe that makes it, as `Task` takes.
        member: number of the model, where several are registered, as under the alias `ensemble`.
        trusted: whether a checkpoint may hold more than tensors and plain data, such as
            hyperparameters that are objects. To read those can run any code that it holds.
        tracking_uri: of MLflow; by default its own.

    Raises:
        InputError: if there is no such model or checkpoint, or the module is another.
        Exception: whatever a function that makes the module raises.

    Example:
        model = load_with_tricks("models:/mine@champion", Mine())
        model = load_with_tricks("models:/mine@champion", backbone)  # the function of the task
    """
    found = _REGISTERED.fullmatch(str(source))
    if found is None and Path(source).is_dir():
        return bring_back(Path(source), module, member)
    if found is None:
        if isinstance(module, nn.Module) and not is_lightning_module(module):
            raise InputError(
                f"a checkpoint is of a LightningModule (got {type(module).__name__}); for a backbone, "
                "use TricksModule.load_from_checkpoint(path, backbone=...)"
            )
        return load_checkpoint(source, module, trusted=trusted)
    client = connect(tracking_uri or mlflow.get_tracking_uri())
    try:
        if found["alias"]:
            version = client.get_model_version_by_alias(found["name"], found["alias"])
        else:
            version = client.get_model_version(found["name"], found["version"])
        folder = version.tags["files"]
        # MLflow shows a bar for each file.
        with tempfile.TemporaryDirectory() as place, contextlib.redirect_stderr(io.StringIO()):
            path = fetch(client, str(version.run_id), folder, place)
            return bring_back(path, module, member)
    except (mlflow.MlflowException, OSError, KeyError) as error:
        raise InputError(f"{source} cannot be loaded: {one_line(error)}") from None
