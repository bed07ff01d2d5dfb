"""Is a repeated trial the mean of separate trainings, even if it is stopped or killed?"""

import dataclasses
import functools
import threading

import numpy as np
import optuna
import pytest
import torch
from conftest import optimize, small_data
from test_study import store
from torch import nn

from lightning_tricks import InMemoryData, InputError, Task, Tricks, create_study, train
from lightning_tricks.run.program import FEW, SEVERAL, _repeats
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.seeds import derive
from lightning_tricks.tracking.agreement import differences
from lightning_tricks.training.repeats import SPREAD, tasks_of, train_together
from lightning_tricks.trial.result import Interrupted
from lightning_tricks.trial.training import Training

DROPPING = Tricks(dropout={"kind": "dropout", "p": 0.3}, averaging="ema")


def whole(**changes):
    """Return a task with unsplit data and a network that draws in training."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(120, 6, generator=generator)
    data = InMemoryData.from_arrays(inputs, (inputs[:, 0] > 0).long(), batch_size=16)

    def network(tricks):
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))

    return Task("whole", data, network, epochs=4, repeats=3, **changes)


def together(tasks, tricks=DROPPING, seed=7, **options):
    return train_together(Training(tasks[0], tricks, seed, **options), tasks)


def alone(tasks, tricks=DROPPING, seed=7):
    seeds = [seed, *(derive(seed, number, "repeat") for number in range(1, len(tasks)))]
    return [train(one, tricks, own) for one, own in zip(tasks, seeds, strict=True)]


def test_splits_are_drawn_anew_and_the_test_split_stays():
    first, second, third = tasks_of(whole())
    for other in (second, third):
        for name in ("train", "validation"):
            mine, theirs = first.data.splits[name], other.data.splits[name]
            assert mine.inputs.shape == theirs.inputs.shape
            assert not torch.equal(mine.inputs, theirs.inputs)
        assert torch.equal(first.data.splits["test"].inputs, other.data.splits["test"].inputs)
        both = torch.cat([other.data.splits[name].inputs for name in ("train", "validation")])
        assert len(torch.unique(both, dim=0)) == len(both)  # no sample is in both splits
        shares = [part.data.splits["validation"].targets.float().mean() for part in (first, other)]
        assert abs(shares[0] - shares[1]) < 0.05
    assert not torch.equal(second.data.splits["train"].inputs, third.data.splits["train"].inputs)
    again = tasks_of(whole())[1]
    assert torch.equal(again.data.splits["train"].inputs, second.data.splits["train"].inputs)


def test_splits_that_were_given_stay():
    given = Task("given", small_data(), whole().backbone, repeats=2)
    first, second = tasks_of(given)
    assert torch.equal(first.data.splits["train"].inputs, second.data.splits["train"].inputs)


def test_each_training_is_what_it_is_alone_and_the_score_is_the_mean():
    tasks = tasks_of(whole())
    found, each = together(tasks), alone(tasks)
    assert len(found.epochs) == 4
    for at, epoch in enumerate(found.epochs):
        scores = [result.epochs[at].score for result in each]
        assert [epoch.metrics[f"val repeats/{n}"] for n in range(3)] == scores
        assert epoch.score == pytest.approx(np.mean(scores))
        assert epoch.metrics[SPREAD] == pytest.approx(np.std(scores, ddof=1))
        losses = [result.epochs[at].metrics["val/loss"] for result in each]
        assert epoch.metrics["val/loss"] == pytest.approx(np.mean(losses))
    assert found.score == found.epochs[-1].score
    for name, weight in found.weights.items():
        assert torch.equal(weight, each[0].weights[name])


def test_the_random_state_of_who_trains_is_left_alone_between_turns():
    """A user's `DataLoader` shuffles here, and draws from torch's own state."""
    rows = torch.utils.data.TensorDataset(torch.randn(40, 6), torch.arange(40) % 2)
    loaders = tuple(torch.utils.data.DataLoader(rows, batch_size=8, shuffle=True) for _ in range(2))
    tasks = tasks_of(Task("loaders", loaders, whole().backbone, epochs=3, repeats=2))
    found, each = together(tasks), alone(tasks)
    assert [e.metrics["val repeats/1"] for e in found.epochs] == [e.score for e in each[1].epochs]
    assert [e.metrics["val repeats/0"] for e in found.epochs] == [e.score for e in each[0].epochs]


def test_a_stop_stops_all():
    found = together(tasks_of(whole()), report=lambda epoch: epoch.number == 1)
    assert (found.state, len(found.epochs)) == ("pruned", 2)
    assert "after epoch 2" in found.reason
    assert threading.active_count() == 1 or not any(
        thread.name.startswith("Thread") and "_run" in thread.name for thread in threading.enumerate()
    )


def test_one_that_stops_by_itself_keeps_its_last_score():
    tricks = Tricks(stopping={"kind": "patience", "patience": 0.2})
    tasks = tasks_of(whole())
    found, each = together(tasks, tricks), alone(tasks, tricks)
    lengths = [len(result.epochs) for result in each]
    assert len(found.epochs) == max(lengths)
    assert found.score == pytest.approx(np.mean([result.score for result in each]))
    assert found.state == "complete"


def test_one_that_diverges_is_the_end_of_all():
    tasks = tasks_of(whole())
    tasks[1].data.splits["train"].inputs[:] = 1e38
    found = together(tasks, Tricks.plain())
    assert found.diverged
    assert found.state == "pruned"


def test_who_wants_to_leave_leaves_at_once():
    asked = iter([False] * 20)
    with pytest.raises(Interrupted):
        together(tasks_of(whole()), interrupted=lambda: next(asked, True))
    assert not [t for t in threading.enumerate() if "_run" in t.name]


def test_a_trial_that_was_killed_goes_on_to_the_same_end(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_tricks.trial.callback.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("lightning_tricks.trial.callback.WRITING_SHARE", 1e9)
    expected = together(tasks_of(whole()))
    checkpoint, seen = tmp_path / "trial-00001.ckpt", []

    def report(epoch):
        seen.append(epoch)
        return False

    with pytest.raises(Interrupted):
        together(
            tasks_of(whole()),
            report=report,
            interrupted=lambda: len(seen) == 2,
            checkpoint=checkpoint,
        )
    written = sorted(path.name for path in tmp_path.iterdir())
    assert "trial-00001.ckpt" in written
    assert all(name.split(".")[0] == "trial-00001" for name in written)  # the folder will remove them
    found = together(tasks_of(whole()), checkpoint=checkpoint)
    assert [e.score for e in found.epochs] == [e.score for e in expected.epochs]
    assert [e.metrics["val repeats/2"] for e in found.epochs] == [
        e.metrics["val repeats/2"] for e in expected.epochs
    ]


# The study as a whole.


@pytest.mark.parametrize("workers", ["inline", pytest.param(2, marks=pytest.mark.slow)])
def test_a_study_of_repeated_trials(with_store, workers):
    study = create_study("whole", storage="optuna.journal", pruner="none")
    run = functools.partial(optimize, study, whole(), n_trials=4, workers=workers)
    run(progress=False)
    for trial in study.trials:
        outcome = Outcome.read(trial)
        last = outcome.epochs[-1]["metrics"]
        if trial.state == optuna.trial.TrialState.COMPLETE:
            scores = [last[f"val repeats/{number}"] for number in range(3)]
            assert trial.value == pytest.approx(np.mean(scores))
    assert not differences(study, whole(), store())
    with pytest.raises(InputError, match="repeats"):
        optimize(study, dataclasses.replace(whole(), repeats=1), n_trials=4, progress=False)


@pytest.mark.usefixtures("without_mlflow")
def test_a_verdict_of_repeated_trials_has_a_training_a_seed(with_store):
    study = create_study("whole", storage="optuna.journal")
    optimize(study, whole(), n_trials=3, finalists=1, seeds=3, workers="inline", progress=False)
    own = optuna.load_study(study_name="whole.verdict", storage=study._storage)
    assert own.trials
    assert not any(SPREAD in e["metrics"] for t in own.trials for e in Outcome.read(t).epochs)


def test_a_small_validation_split_has_several_trainings_a_trial_unless_told_otherwise():
    small = Task("small", whole().data, whole().backbone)
    assert _repeats(small) == SEVERAL
    inputs = torch.randn(5 * FEW, 2)
    large = InMemoryData.from_arrays(inputs, (inputs[:, 0] > 0).long())
    assert _repeats(Task("large", large, whole().backbone)) == 1
    assert _repeats(Task("own", large, whole().backbone, repeats=2)) == 2


@pytest.mark.usefixtures("without_mlflow")
def test_several_devices_and_repeats_are_refused(with_store):
    study = create_study("whole", storage=None)
    with pytest.raises(InputError, match="leave repeats at 1"):
        optimize(study, whole(), n_trials=1, devices_per_trial=2, progress=False)
    with pytest.raises(InputError, match="repeats must be"):
        Task("none", small_data(), whole().backbone, repeats=0)
