"""`load_with_tricks`: load a trained module from a checkpoint, a folder or MLflow."""

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
from lightning_tricks.tracking.client import reach

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
    """Load a trained module: its weights, with the layers that its tricks changed.

    `YourModule.load_from_checkpoint` does not know these layers. `without_tricks` turns the returned
    module back into one of your class. A registered model comes back in evaluation mode; call `train()`
    before you train it further.

    Args:
        source: one of three: `models:/NAME@champion`, a model that a study registered; the folder where
            a study without MLflow put it, such as `checkpoints/NAME/champion`; the path of a checkpoint
            that a Trainer wrote for a module of `with_tricks`.
        module: a new module, made like the trained one. If the registered model was no LightningModule,
            its backbone. Or a function that makes it from the recipe, as for `Task`.
        member: index of the model if several are registered together, as under the alias `ensemble`.
        trusted: whether the checkpoint may hold more than tensors and plain data, such as
            hyperparameters that are objects. Loading those can run any code in the checkpoint.
        tracking_uri: MLflow's tracking URI; by default MLflow's own setting.

    Raises:
        InputError: if there is no such model or checkpoint, or it does not fit the module.
        Exception: whatever the function that makes the module raises.

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
                f"a checkpoint needs a LightningModule (got {type(module).__name__}); for a backbone, "
                "use TricksModule.load_from_checkpoint(path, backbone=...)"
            )
        return load_checkpoint(source, module, trusted=trusted)
    client = reach(tracking_uri)
    try:
        if found["alias"]:
            version = client.get_model_version_by_alias(found["name"], found["alias"])
        else:
            version = client.get_model_version(found["name"], found["version"])
        folder = version.tags["files"]
        # MLflow would show a progress bar for each file.
        with tempfile.TemporaryDirectory() as place, contextlib.redirect_stderr(io.StringIO()):
            path = fetch(client, str(version.run_id), folder, place)
            return bring_back(path, module, member)
    except (mlflow.MlflowException, OSError, KeyError) as error:
        raise InputError(f"{source} cannot be loaded: {one_line(error)}") from None
