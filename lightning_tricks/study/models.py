"""The models of finished trials: brought back, scored on the test split, the best one registered."""

import contextlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from lightning_tricks.module.conversion import without_tricks
from lightning_tricks.module.ensemble import Ensemble
from lightning_tricks.module.hooks import TricksHooks
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.standing import Standing
from lightning_tricks.study.evaluation import evaluator
from lightning_tricks.study.folder import StudyFolder
from lightning_tricks.surgery.replace import load_state
from lightning_tricks.task.quiet import quiet
from lightning_tricks.task.task import Task
from lightning_tricks.tracking.registry import ENSEMBLE
from lightning_tricks.tracking.tracker import Tracker
from lightning_tricks.trial.train import train
from lightning_tricks.tricks.record import Tricks, describe


def restore(
    task: Task, outcome: Outcome, folder: StudyFolder, number: int, warn: Callable[[str], None]
) -> TricksHooks:
    """Return the module of a finished trial, as it was scored.

    Weights that are not in the folder are trained again, from the same record and seed.
    """
    tricks = task.tricks.parse(outcome.record)
    module = task.module(tricks)
    if (weights := folder.load_weights(number)) is not None:
        with contextlib.suppress(Exception):  # what stands there may be of another network
            load_state(module, weights)
            return module
    warn(f"the weights of trial {number} are not in {folder.path}: training it again")
    trained = dict(train(task, tricks, outcome.seed).weights)
    with contextlib.suppress(OSError, RuntimeError):  # no space, say
        folder.save_weights(number, outcome, lambda: trained)
    load_state(module, trained)
    return module


def register(
    task: Task,
    module: TricksHooks,
    tracker: Tracker,
    number: int,
    standing: Standing,
    alias: str,
    what: str = "",
) -> str:
    """Log and register a trial's module in MLflow; return the version of the registered model.

    Args:
        task: of the study.
        module: of the trial.
        tracker: of the study.
        number: of the trial.
        standing: of the study, with the trial's metrics on the test split.
        alias: of the version.
        what: the model is, in a sentence; by default that it is of this trial.
    """
    name = tracker.name
    inputs, _ = task.example()
    example = inputs[:2].cpu()
    with tempfile.TemporaryDirectory() as place:
        weights, record = Path(place, "state_dict.pt"), Path(place, "tricks.json")
        torch.save(module.state_dict(), weights)
        record.write_text(json.dumps(module.tricks.model_dump(), indent=2), encoding="utf-8")
        version = tracker.register(
            number, without_tricks(module), example.numpy(), [weights, record], alias
        )
    shape = ", ".join(map(str, ("N", *example.shape[1:])))
    model = (
        f"The model of the study `{name}` to use is its version with the alias `{alias}`.\n\n"
        f"{_snippet(f'{name}@{alias}', shape)}"
    )
    tracker.describe_model(
        version,
        model,
        _page(
            name,
            version,
            shape,
            alias,
            what or _of_trial(name, number, standing),
            module.tricks,
            standing,
        ),
    )
    return version


def register_ensemble(
    task: Task, ensemble: Ensemble, tracker: Tracker, number: int, members: int
) -> str:
    """Register the champion's models over several seeds as one, under the alias `ensemble`."""
    inputs, _ = task.example()
    version = tracker.register(number, ensemble, inputs[:2].cpu().numpy(), [], ENSEMBLE)
    tracker.client.update_model_version(
        tracker.name,
        version,
        f"{members} models of the champion's recipe, each of another seed, whose outputs are averaged: "
        f"a prediction costs {members} times one of the champion.",
    )
    return version


def _of_trial(name: str, number: int, standing: Standing) -> str:
    test = [f"{key} {value:.4f}" for key, value in standing.tests.get(number, {}).items()]
    return f"Trial {number} of the study `{name}`" + (f": {', '.join(test)}." if test else ".")


def _page(
    name: str, version: str, shape: str, alias: str, what: str, tricks: Tricks, standing: Standing
) -> str:
    """Write the page of a model version: what it is, how to load it, its recipe."""
    stages = [(stage, describe(getattr(tricks, stage))) for stage in type(tricks).model_fields]
    changed = tricks.differences(standing.baseline)
    rows = [f"| {stage} | {mine} | {changed.get(stage, ('', ''))[1]} |" for stage, mine in stages]
    return "\n".join(
        [
            what,
            "",
            _snippet(f"{name}/{version}", shape),
            "",
            "| stage | trick | instead of the baseline's |",
            "|---|---|---|",
            *rows,
            "",
            f"The recipe as JSON and a `state_dict` for training on are in the run's folder `{alias}`.",
        ]
    )


def _snippet(model: str, shape: str) -> str:
    return (
        "```python\n"
        "import mlflow\n\n"
        f'model = mlflow.pytorch.load_model("models:/{model}")  # no code is unpickled\n'
        f"model(raw_inputs)  # of shape ({shape}); input scaling is inside\n"
        "```"
    )


def test(task: Task, module: TricksHooks) -> dict[str, float]:
    """Return the metrics on the test split; empty if the data module has none."""
    if not task.tests():
        return {}
    with quiet():
        found = evaluator(task, module).test(module, datamodule=task.data_of(module), verbose=False)[0]
    return {name: float(value) for name, value in found.items()}
