"""The best trial's model: its weights kept, its test score taken once, itself registered."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch

from lightning_tricks import surgery
from lightning_tricks.adoption import without_tricks
from lightning_tricks.hooks import TricksHooks
from lightning_tricks.ledger import Outcome
from lightning_tricks.shelf import Shelf
from lightning_tricks.silence import SILENT, quiet
from lightning_tricks.task import Task
from lightning_tricks.tracking import Tracker
from lightning_tricks.trial import train
from lightning_tricks.tricks import Tricks


@dataclass(frozen=True)
class Champion:
    """The best trial's module, with its score on the test split."""

    number: int
    tricks: Tricks
    module: TricksHooks
    test: dict[str, float]
    """Metrics on the test split by name; empty if there is none."""


def crown(
    task: Task, outcome: Outcome, shelf: Shelf, number: int, say: Callable[[str], None]
) -> Champion:
    """Return the module of a finished trial, and look at the test split with it.

    Weights that are not on the shelf are trained again, from the same record and seed.
    """
    tricks = task.tricks.parse(outcome.record)
    weights = shelf.get(number)
    if weights is None:
        say(f"the weights of trial {number} are not in {shelf.folder}: training it again")
        result = train(task, tricks, outcome.seed)
        weights = dict(result.weights)
    module = task.module(tricks)
    surgery.load_state(module, weights)
    return Champion(number, tricks, module, _test(task, module))


def register(champion: Champion, tracker: Tracker, name: str, task: Task) -> str:
    """Log and register a champion in MLflow; return the version of the registered model."""
    inputs, _ = task.example()
    example = inputs[:2].cpu()
    with tempfile.TemporaryDirectory() as folder:
        weights, record = Path(folder, "state_dict.pt"), Path(folder, "tricks.json")
        torch.save(champion.module.state_dict(), weights)
        record.write_text(json.dumps(champion.tricks.model_dump(), indent=2), encoding="utf-8")
        version = tracker.register(
            champion.number, name, without_tricks(champion.module), example.numpy(), [weights, record]
        )
    tracker.score(champion.number, champion.test)
    return version


def _test(task: Task, module: TricksHooks) -> dict[str, float]:
    """Return the metrics on the test split; empty if the data module has none."""
    if not task.tests():
        return {}
    with quiet():
        trainer = pl.Trainer(
            **SILENT,
            **{k: v for k, v in task.trainer.items() if k in ("accelerator", "precision")},
        )
        found = trainer.test(module, datamodule=task.data, verbose=False)[0]
    return {name: float(value) for name, value in found.items()}
