"""One trial over two processes, joined by gloo on the CPU: the same code path as on two GPUs."""

import os
import signal
from pathlib import Path

import optuna
import pytest
import torch
import troubled
from conftest import mlp, optimize, small_data
from optuna.trial import TrialState
from torch import nn

from lightning_tricks import InputError, Space, Task, Tricks, create_study, train
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.training.ranks import RankDied, Ranks
from lightning_tricks.trial.training import Training

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ddp")]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    # Batches of 7 do not divide by two; the batch norm of each process sees half a batch.
    return troubled.task(folder, data=small_data(batch_size=7), epochs=4)


@pytest.fixture(scope="module")
def ranks(task):
    made = Ranks(task, 2)
    yield made
    made.close()


@pytest.mark.parametrize("scaling", ["standardize", "unit"])
def test_two_processes_train_as_one_does(ranks, task, scaling):
    tricks = troubled.Troubled(
        normalization={"kind": "none"}, averaging={"kind": "ema"}, scaling={"kind": scaling}
    )
    alone, together = train(task, tricks, 5), ranks.train(Training(task, tricks, 5))
    assert together.state == "complete"
    for one, two in zip(alone.epochs, together.epochs, strict=True):
        assert two.score == pytest.approx(one.score, abs=1e-6)
        assert two.metrics["val/loss"] == pytest.approx(one.metrics["val/loss"], rel=0.02)
    for name, value in alone.weights.items():
        torch.testing.assert_close(together.weights[name], value, rtol=0.05, atol=0.02)


def test_all_processes_stop_together_and_serve_the_next_trial(ranks):
    result = ranks.train(
        Training(ranks.task, troubled.Troubled(trouble="slow"), 5, report=lambda epoch: True)
    )
    assert result.state == "pruned"
    assert len(result.epochs) <= 2
    assert ranks.train(Training(ranks.task, troubled.Troubled(), 5)).state == "complete"


def test_an_exception_in_one_is_told_with_its_reason(ranks):
    result = ranks.train(Training(ranks.task, troubled.Troubled(trouble="raises"), 5))
    assert (result.state, result.reason) == ("failed", "RuntimeError: it does not work")


def test_a_process_that_dies_is_not_waited_for(ranks):
    with pytest.raises(RankDied):
        ranks.train(Training(ranks.task, troubled.Troubled(trouble="dies"), 5))


def test_a_trial_goes_on_from_its_checkpoint(ranks, tmp_path):
    tricks, checkpoint = troubled.Troubled(trouble="slow"), tmp_path / "trial.ckpt"

    def kill(epoch):
        if epoch.number == 2:
            os.kill(ranks._processes[1].pid, signal.SIGKILL)
        return False

    with pytest.raises(RankDied):
        ranks.train(Training(ranks.task, tricks, 5, report=kill, checkpoint=checkpoint))
    assert checkpoint.exists()
    heard = []
    again = ranks.train(Training(ranks.task, tricks, 5, report=heard.append, checkpoint=checkpoint))
    whole = ranks.train(Training(ranks.task, troubled.Troubled(), 5))
    assert [e.score for e in again.epochs] == [e.score for e in whole.epochs]
    assert heard == again.epochs


def test_a_trial_pauses_and_goes_on(ranks, tmp_path):
    tricks, path = troubled.Troubled(averaging={"kind": "ema"}), tmp_path / "trial.ckpt"
    paused = ranks.train(Training(ranks.task, tricks, 5, checkpoint=path, pause_after=1))
    assert (paused.state, len(paused.epochs)) == ("paused", 2)
    ended = ranks.train(Training(ranks.task, tricks, 5, checkpoint=path))
    whole = ranks.train(Training(ranks.task, tricks, 5))
    assert [e.score for e in ended.epochs] == [e.score for e in whole.epochs]
    assert all((ended.weights[name] == value).all() for name, value in whole.weights.items())


class Wide(nn.Sequential):
    """Large enough for a trial to take a moment."""


def backbone(tricks):
    return Wide(mlp(width=64))


def test_a_study_prunes_trials_over_two_processes_as_pruned(with_store):
    pruner = optuna.pruners.ThresholdPruner(lower=2.0, n_warmup_steps=1)
    study = create_study("tiny", storage=None, sampler="random")
    study.pruner = pruner
    task = Task("tiny", small_data(), backbone, epochs=6)
    optimize(study, task, n_trials=3, workers="inline", devices_per_trial=2, progress=False)
    assert [t.state for t in study.trials] == [TrialState.PRUNED] * 3
    for trial in study.trials:
        outcome = Outcome.read(trial)
        assert len(outcome.epochs) == 2
        assert outcome.reason == "the pruner stopped it after epoch 2"
    assert Tricks.parse(Outcome.read(study.trials[0]).recipe) == Tricks()


def test_an_epoch_is_told_once_however_often_a_trial_begins(with_store, tmp_path):
    """If some epochs are not validated, an epoch's number is not the count of reports."""
    every_other = {"check_val_every_n_epoch": 2}
    task = troubled.task(tmp_path, epochs=6, trainer=every_other)
    space = Space(troubled.Troubled).pin({"trouble": "dies once"})
    study = create_study("tiny", storage=None)
    optimize(study, task, n_trials=1, space=space, workers="inline", devices_per_trial=2)
    assert Path(tmp_path, "died").exists()
    outcome = Outcome.read(study.trials[0])
    assert [epoch["number"] for epoch in outcome.epochs] == [1, 3, 5]
    assert study.trials[0].state == TrialState.COMPLETE


def test_a_batch_without_a_sample_for_each_process_is_refused(with_store):
    task = Task("tiny", small_data(batch_size=1), backbone, epochs=2)
    with pytest.raises(InputError, match="each of 2 processes needs a sample of every batch"):
        optimize(create_study("tiny", storage=None), task, n_trials=1, devices_per_trial=2)
