"""The models of finished trials: brought back, scored on the test split, the best one registered."""

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
from torch import nn

from lightning_tricks.markdown import escaped, table
from lightning_tricks.module.conversion import without_tricks
from lightning_tricks.module.ensemble import Answering, Ensemble
from lightning_tricks.module.kept import keep
from lightning_tricks.module.tricks_module import TricksModule
from lightning_tricks.search.archive import Archive, Models
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.study_state import StudyState
from lightning_tricks.study.folder import StudyFolder
from lightning_tricks.surgery.replace import load_state
from lightning_tricks.task.quiet import quiet
from lightning_tricks.task.task import Task
from lightning_tricks.trial.fit import fit
from lightning_tricks.trial.training import Training
from lightning_tricks.tricks.recipe import Tricks
from lightning_tricks.tricks.recipe import describe as words
from lightning_tricks.tricks.recipe_types import import_of
from lightning_tricks.verdict import evaluation


def restore(
    task: Task, outcome: Outcome, folder: StudyFolder, number: int, warn: Callable[[str], None]
) -> pl.LightningModule:
    """Return the module of a finished trial, as it was scored.

    Weights that are not in the folder are trained again, from the same recipe and seed.
    """
    tricks = task.tricks.parse(outcome.recipe)
    module = task.module(tricks, set_up=True)
    if (weights := folder.load_weights(number)) is not None:
        with contextlib.suppress(Exception):  # what stands there may be of another network
            load_state(module, weights)
            return module
    warn(f"the weights of trial {number} are not in {folder.path}: training it again")
    trained = dict(fit(Training(task, tricks, outcome.seed)).weights)
    with contextlib.suppress(OSError, RuntimeError):  # no space, say
        folder.save_weights(number, outcome, lambda: trained)
    load_state(module, trained)
    return module


@dataclass(frozen=True)
class Registered:
    """A version of a registered model, and how to load it."""

    archive: Archive
    """In which it is."""
    version: str
    alias: str
    shape: str
    """Shape of the inputs of its network; empty if none could be exported."""
    kind: str
    """Class of the LightningModule; empty for a backbone."""
    recipe: type[Tricks]
    """Type of its recipe."""

    def snippet(self, *, version: bool = False) -> str:
        """Write how to load the model: by its alias, or this very version."""
        model = self.archive.address(self.alias, self.version if version else "")
        module = f"{self.kind}(...)" if self.kind else "backbone"
        own = (
            f"from lightning_tricks import load_with_tricks\n{import_of(self.recipe)}\n"
            f'module = load_with_tricks("{model}", {module})  # as the study makes it\n'
        )
        network = (
            "import mlflow\n\n"
            f'model = mlflow.pytorch.load_model("{model}")\n'
            f"model(raw_inputs)  # of shape ({self.shape})\n"
        )
        blocks = [network, own] if self.shape else [own]
        code = "\n".join(f"```python\n{block}```" for block in blocks)
        return f"{code}\n\nNo code is unpickled. `without_tricks(module)` is of the class it came from."


def register(
    task: Task,
    models: Mapping[int, pl.LightningModule],
    recipe: Tricks,
    archive: Archive,
    number: int,
    alias: str,
) -> Registered:
    """Register the models of a recipe: files, and a network where it can be exported.

    Args:
        task: of the study.
        models: of trials of the recipe, by their numbers; several for an ensemble.
        recipe: of the trials.
        archive: of the study.
        number: of the trial with which the models are kept.
        alias: of the version.
    """
    modules = list(models.values())
    network: nn.Module | None = without_tricks(modules[0])
    if len(modules) > 1:
        network = _together(task, modules)
    with tempfile.TemporaryDirectory() as place:
        files = keep(modules, recipe, Path(place))
        example = evaluation.example_of(task, modules[0])
        answering = None if network is None or example is None else Answering(network, example)
        kept = Models(alias, number, tuple(models), files, answering)
        version, exported = archive.register(kept)
    shape = ", ".join(map(str, ("N", *example.shape[1:]))) if exported and example is not None else ""
    kind = type(modules[0]).__name__ if not isinstance(modules[0], TricksModule) else ""
    return Registered(archive, version, alias, shape, kind, type(recipe))


def _together(task: Task, modules: Sequence[pl.LightningModule]) -> Ensemble | None:
    """Return models as one; None for LightningModules of the user's, which answer in their own way."""
    if not all(isinstance(module, TricksModule) for module in modules):
        return None
    probabilities = evaluation.averages_probabilities(task)
    return Ensemble([without_tricks(m) for m in modules], probabilities=probabilities).eval()


def describe(
    registered: Registered, study: str, recipe: Tricks, study_state: StudyState, what: str
) -> None:
    """Write the pages of a registered model and of its version.

    Args:
        registered: the version.
        study: its name.
        recipe: of the model.
        study_state: of the study.
        what: the model is, in a sentence.
    """
    alias = registered.alias
    model = (
        f"The model of the study `{study}` to use is its version with the alias `{alias}`.\n\n"
        f"{registered.snippet()}"
    )
    page = _page(registered, recipe, study_state, what)
    registered.archive.describe_model(alias, registered.version, page, model)


def describe_together(registered: Registered, members: int) -> None:
    """Write the page of an ensemble: what it is, and how to load it."""
    each = (
        f"{members} models of the champion's recipe, each of another seed: a prediction of all costs "
        f"{members} times one of the champion."
    )
    how = "Their outputs are averaged."
    if not registered.shape:
        how = "`load_with_tricks(..., member=n)` loads the n-th, from 0 on."
    text = f"{each} {how}\n\n{registered.snippet()}"
    registered.archive.describe_model(registered.alias, registered.version, text)


def of_trial(name: str, number: int, study_state: StudyState) -> str:
    """Say which trial a model is of."""
    test = [f"{escaped(key)} {value:.4f}" for key, value in study_state.tests.get(number, {}).items()]
    return f"Trial {number} of the study `{name}`" + (f": {', '.join(test)}." if test else ".")


def _page(registered: Registered, recipe: Tricks, study_state: StudyState, what: str) -> str:
    """Write the page of a model version: what it is, how to load it, its recipe."""
    stages = [(stage, words(getattr(recipe, stage))) for stage in type(recipe).model_fields]
    changed = recipe.differences(study_state.baseline)
    rows = [(stage, escaped(mine), escaped(changed.get(stage, ("", ""))[1])) for stage, mine in stages]
    return "\n".join(
        [
            what,
            "",
            registered.snippet(version=True),
            "",
            table(("stage", "trick", "instead of the baseline's"), rows),
            "",
            f"Recipe, versions and weights are in the run's folder `{registered.alias}`.",
        ]
    )


def test(task: Task, module: pl.LightningModule) -> dict[str, float]:
    """Return the metrics on the test split; empty if there is none, or no step for it."""
    if not evaluation.tests(task, module):
        return {}
    with quiet():
        found = evaluation.evaluator(task, module).test(
            module, datamodule=task.data_of(module), verbose=False
        )[0]
    return {name: float(value) for name, value in found.items()}
