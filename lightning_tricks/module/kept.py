"""Trained modules saved as plain files, and loaded again from these or from checkpoints.

Reading unpickles nothing, except checkpoints that the user trusts.
"""

import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lightning_tricks.errors import InputError, one_line
from lightning_tricks.flavors import is_lightning_module
from lightning_tricks.module.conversion import with_tricks
from lightning_tricks.module.hooks import SAVED, TricksHooks
from lightning_tricks.module.tricks_module import TricksModule
from lightning_tricks.surgery.anatomy import Anatomy
from lightning_tricks.surgery.replace import load_state, load_whole
from lightning_tricks.tricks.recipe import ModuleTricks, Tricks
from lightning_tricks.tricks.recipe_types import recipe_of, type_name

RECIPE = "tricks.json"
"""Name of the file with the recipe."""
MODULE = "module.json"
"""Name of the file with everything else that is needed to make the module again."""
PACKAGES = ("lightning_tricks", "torch", "pytorch-lightning")


def weights_name(member: int) -> str:
    """Return the name of the file with the weights of one of several models."""
    return f"weights-{member}.safetensors" if member else "weights.safetensors"


def keep(modules: Sequence[pl.LightningModule], recipe: Tricks, folder: Path) -> list[Path]:
    """Write trained modules of one recipe into a folder. Return the folder's files.

    Args:
        modules: trained modules of different seeds.
        recipe: the recipe of all of them.
        folder: an existing folder.
    """
    first = modules[0]
    data: dict[str, Any] = {
        "recipe_type": type_name(recipe),
        "class": f"{type(first).__module__}.{type(first).__qualname__}",
        "versions": {name: version(name) for name in PACKAGES},
    }
    if isinstance(first, TricksHooks):
        data |= first.what_it_needs()
    (folder / RECIPE).write_text(json.dumps(recipe.model_dump(), indent=2), encoding="utf-8")
    (folder / MODULE).write_text(json.dumps(data, indent=2), encoding="utf-8")
    for member, module in enumerate(modules):
        # A tensor with several names is written once per name: the format has no ties.
        state = {n: t.detach().cpu().clone().contiguous() for n, t in _tensors(module).items()}
        save_file(state, folder / weights_name(member))
    return sorted(folder.iterdir())


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}


Makes = nn.Module | Callable[[Any], nn.Module]
"""A new module made like the trained one, or a function that makes it from the recipe."""


def bring_back(folder: Path, module: Makes, member: int = 0) -> Any:
    """Return a module that `keep` wrote, with its trained weights.

    Args:
        folder: the folder that `keep` wrote.
        module: a new module or backbone, made like the trained one, or a function that makes it.
        member: number of the model, if several were kept.

    Raises:
        InputError: if a file is missing or damaged, or the weights do not fit the module.
    """
    try:
        recipe = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        data = json.loads((folder / MODULE).read_text(encoding="utf-8"))
        state = load_file(folder / weights_name(member))
        tricks = recipe_of(recipe, data["recipe_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(folder)!r} holds no module with tricks: {one_line(error)}") from None
    try:
        changed = _made_again(module, tricks, data)
    except AttributeError as error:
        place, _, kind = data["recipe_type"].partition(":")
        if kind == type(tricks).__qualname__:
            raise
        raise InputError(
            f"the function needs a recipe of the type {kind!r} of {place!r}, which is not imported: "
            f"import it before the model is loaded ({one_line(error)})"
        ) from None
    # State that is no tensor was not saved: keep the new module's own.
    own = {name: value for name, value in changed.state_dict().items() if not torch.is_tensor(value)}
    with _weights_of_this_module():
        load_state(changed, {**own, **state})
    return changed.eval()


def _made_again(given: Makes, tricks: Tricks, needs: Mapping[str, Any]) -> Any:
    """Return a new module with the layers of a recipe.

    Args:
        given: a new module or backbone, made like the trained one, or a function of the recipe.
        tricks: the recipe.
        needs: the result of `TricksHooks.what_it_needs`.
    """
    module = given if isinstance(given, nn.Module) or not callable(given) else given(tricks)
    if not isinstance(module, nn.Module):
        raise InputError(
            "the module must be a new one, or a function of the recipe that makes it "
            f"(got {type(module).__name__})"
        )
    if isinstance(tricks, ModuleTricks) and tricks.untouched:
        return module
    monitor, mode, validation_loss = needs["watched"]
    make: Any = with_tricks if is_lightning_module(module) else TricksModule
    return make(
        module,
        tricks,
        monitor=monitor,
        mode=mode,
        validation_loss=validation_loss,
        anatomy=Anatomy.read(needs["anatomy"]),
    )


@contextmanager
def _weights_of_this_module() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise InputError(f"the weights are of another module: {one_line(error)}") from None


def load_checkpoint(path: str | Path, module: Makes, *, trusted: bool = False) -> Any:
    """Return the module of a checkpoint, with its tricks and its weights.

    The module must come from `with_tricks`. `YourModule.load_from_checkpoint` cannot load it, because
    the recipe in the checkpoint changes its layers. Call `without_tricks` on the result for a module
    of your own class.

    Args:
        path: a checkpoint that a Trainer wrote.
        module: a new module, made like the one given to `with_tricks`, or a function that makes it.
        trusted: whether the checkpoint may hold more than tensors and plain data, such as
            hyperparameters that are objects. Reading these can run any code in the checkpoint.

    Raises:
        InputError: if the file is no such checkpoint, or the weights do not fit the module.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=not trusted)
        saved, state = checkpoint[SAVED], checkpoint["state_dict"]
        recipe = recipe_of(saved["recipe"], saved["recipe_type"])
        needs = {name: saved[name] for name in ("watched", "anatomy")}
    except pickle.UnpicklingError:
        raise InputError(
            f"{str(path)!r} holds more than tensors and plain data: pass trusted=True if you know who "
            "wrote it"
        ) from None
    except (OSError, KeyError, TypeError, RuntimeError, EOFError) as error:
        raise InputError(f"{str(path)!r} is no checkpoint of tricks: {one_line(error)}") from None
    changed = _made_again(module, recipe, needs)
    with _weights_of_this_module():
        load_whole(changed, state)
    return changed
