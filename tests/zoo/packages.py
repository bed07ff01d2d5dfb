"""A small study of a network from another package, and checks of it."""

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_tricks import Summary, Task, create_study, load_with_tricks, optimize
from lightning_tricks.flavors import flavor_of, is_lightning_module


def check_study(
    task: Task, make: Callable[[], nn.Module], answer: Callable[[Any], Tensor], folder: Path
) -> Summary:
    """Search the tricks of a task, and check the study, its best model and its champion.

    Args:
        task: a task with few samples.
        make: a function that makes a new network of the task.
        answer: a function that returns a network's outputs for one batch.
        folder: the folder of the MLflow store.

    Returns:
        The summary of the study.
    """
    uri = f"sqlite:///{folder}/mlflow.db"
    study = create_study(task.name, storage=None, epochs=task.epochs, direction=task.direction)
    search = functools.partial(
        optimize, study, task, n_trials=4, workers="inline", tracking_uri=uri, progress=False
    )
    with warnings.catch_warnings():
        # Warnings that a trick could act on nothing.
        warnings.filterwarnings("ignore", message=".*: looked for ", category=UserWarning)
        if is_lightning_module(make()):  # its champion may be the unchanged module, without tricks
            search()
            _check_model(task, "best", make, answer, uri)
        summary = search(finalists=1, seeds=3, verdict_budget=8)
    _check_trials(study, make, summary)
    _check_model(task, "champion", make, answer, uri)
    return summary


def _check_trials(study: optuna.Study, make: Callable[[], nn.Module], summary: Summary) -> None:
    """Check that no trial failed, and that the verdict has a champion and the row `yours`."""
    again = optuna.load_study(study_name=f"{study.study_name}.verdict", storage=study._storage)
    failed = [t for t in (*study.trials, *again.trials) if t.state == TrialState.FAIL]
    assert not failed, [t.user_attrs for t in failed]
    verdict = summary.verdict
    assert verdict is not None
    assert verdict.champion in verdict.rows
    assert ("yours" in verdict.rows) == is_lightning_module(make())


def _check_model(
    task: Task, alias: str, make: Callable[[], nn.Module], answer: Callable[[Any], Tensor], uri: str
) -> None:
    """Check that a registered model loads with its weights, its score and its outputs."""
    client = MlflowClient(uri)
    version = client.get_model_version_by_alias(task.name, alias)
    first, second = (
        load_with_tricks(f"models:/{task.name}@{alias}", make(), tracking_uri=uri).eval()
        for _ in range(2)
    )
    path = f"{version.tags['files']}/weights.safetensors"
    kept = load_file(client.download_artifacts(version.run_id, path))
    state = {k: v for k, v in first.state_dict().items() if isinstance(v, Tensor)}
    assert state.keys() == kept.keys()
    for name, weights in kept.items():
        torch.testing.assert_close(state[name], weights, rtol=0, atol=0, equal_nan=True)
    with torch.no_grad():
        answers = answer(first)
        assert torch.isfinite(answers).all()
        torch.testing.assert_close(answer(second), answers, rtol=0, atol=0)
    trainer = flavor_of(first).package.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    (found,) = trainer.validate(first, datamodule=task.data_of(first), verbose=False)
    score = client.get_run(version.run_id).data.metrics["objective"]
    assert found[task.monitor] == pytest.approx(score, rel=1e-3, abs=1e-4)
