"""Checkpoints are input: none runs code, and no damaged or foreign one ends a trial."""

import os
import pickle
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from conftest import mlp, small_data
from test_trial import task

from lightning_tricks import ModuleTricks, Task, Tricks, train
from lightning_tricks.trial import callback
from lightning_tricks.trial.checkpoints import read
from lightning_tricks.trial.result import Interrupted


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def half(tmp_path, monkeypatch):
    """Return the checkpoint of an interrupted trial."""
    monkeypatch.setattr(callback, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(callback, "WRITING_SHARE", 1e9)
    path = tmp_path / "trial.ckpt"
    interrupted_train(task(), Tricks(), path)
    return path


def interrupted_train(chosen, tricks, path):
    asked = iter([False] * 9 + [True])
    with pytest.raises(Interrupted):
        train(chosen, tricks, 3, interrupted=lambda: next(asked), checkpoint=path)


def test_a_checkpoint_that_would_run_code_is_not_unpickled(half):
    mark = half.with_name("mark")
    content = read(half)
    content["callbacks"]["evil"] = Evil(mark)
    torch.save(content, half)
    result = train(task(), Tricks(), 3, checkpoint=half)
    assert not mark.exists()
    assert result.epochs == train(task(), Tricks(), 3).epochs
    assert "its checkpoint cannot be read" in result.warning
    assert "it started over" in result.warning


@pytest.mark.parametrize("change", ["pickle", "empty", "optimizer", "epochs", "missing", "shape"])
def test_a_damaged_checkpoint_is_told_and_the_trial_begins_anew(half, change):
    content = read(half)
    if change == "pickle":
        half.write_bytes(pickle.dumps(content["trial"]["identity"]))
    elif change == "empty":
        half.write_bytes(b"")
    elif change == "optimizer":
        content["optimizer_states"] = [{"state": 7}]
    elif change == "epochs":
        content["trial"]["epochs"] = [{"number": 0}]
    elif change == "missing":
        del content["loops"]
    else:
        weights = content["state_dict"]
        weights["backbone.0.weight"] = weights["backbone.0.weight"][:, :1]
    if change not in ("pickle", "empty"):
        torch.save(content, half)
    result = train(task(), Tricks(), 3, checkpoint=half)
    assert result.state == "complete"
    assert result.epochs == train(task(), Tricks(), 3).epochs
    assert "it started over" in result.warning


class Own(pl.LightningModule):
    """Keeps hyperparameters that are not plain data, as many modules do."""

    def __init__(self, loss):
        super().__init__()
        self.save_hyperparameters()
        self.network, self.loss = mlp(), loss

    def training_step(self, batch, batch_idx):
        return self.loss(self.network(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(self.network(batch[0]), batch[1]))


def test_hyperparameters_of_a_users_module_do_not_keep_it_from_going_on(tmp_path, monkeypatch):
    monkeypatch.setattr(callback, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(callback, "WRITING_SHARE", 1e9)
    chosen = Task(
        "own",
        small_data(),
        lambda tricks: Own(F.cross_entropy),
        tricks=ModuleTricks,
        epochs=4,
        monitor="val/loss",
        mode="min",
    )
    path = Path(tmp_path, "trial.ckpt")
    interrupted_train(chosen, ModuleTricks(), path)
    batches = []
    resumed = train(
        chosen, ModuleTricks(), 3, interrupted=lambda: batches.append(1) or False, checkpoint=path
    )
    assert resumed.epochs == train(chosen, ModuleTricks(), 3).epochs
    assert len(batches) < 4 * 4
    assert not resumed.warning


def test_a_checkpoint_of_another_task_is_not_gone_on_from(half):
    changed = task(data=small_data(batch_size=4))
    assert train(changed, Tricks(), 3, checkpoint=half).epochs == train(changed, Tricks(), 3).epochs
