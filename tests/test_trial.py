import gc

import pytest
import pytorch_lightning as pl
import torch
from conftest import mlp, samples, small_data, variant
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_tricks import InputError, Space, Task, Tricks, train
from lightning_tricks.task.checks import check
from lightning_tricks.trial import callback
from lightning_tricks.trial.result import Interrupted


def task(**changes):
    return Task(
        **{
            "name": "small",
            "data": small_data(),
            "backbone": lambda tricks: mlp(),
            "epochs": 4,
            **changes,
        }
    )


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    tricks = Tricks(dropout={"kind": "dropout"}, averaging={"kind": "ema"})
    one, two, other = (train(task(), tricks, seed) for seed in (1, 1, 2))
    assert [e.metrics for e in one.epochs] == [e.metrics for e in two.epochs]
    assert all(torch.equal(one.weights[k], two.weights[k]) for k in one.weights)
    assert [e.metrics for e in one.epochs] != [e.metrics for e in other.epochs]


def test_each_epoch_is_reported_with_its_metrics():
    heard = []
    result = train(task(), Tricks(), 0, report=lambda epoch: heard.append(epoch) or False)
    assert heard == result.epochs
    assert [e.number for e in heard] == [0, 1, 2, 3]
    assert result.state == "complete"
    assert result.score == heard[-1].metrics["val/accuracy"]
    assert {"train/loss", "weights/gradient_norm", "val/loss", "lr"} <= set(heard[0].metrics)
    assert result.parameters == sum(p.numel() for p in task().module(Tricks()).parameters())


def test_a_stop_ends_it_after_that_epoch_as_pruned():
    result = train(task(), Tricks(), 0, report=lambda epoch: epoch.number == 1)
    assert (result.state, len(result.epochs)) == ("pruned", 2)
    assert "after epoch 2" in result.reason


def test_a_stop_after_the_last_epoch_is_no_pruning():
    assert train(task(), Tricks(), 0, report=lambda epoch: epoch.number == 3).state == "complete"


def test_a_divergence_prunes_it_at_once_and_says_why():
    data = small_data()
    data.splits["train"].inputs.mul_(1e30)
    result = train(task(data=data), Tricks.plain(), 0)
    assert result.state == "pruned"
    assert "became" in result.reason
    assert "(epoch 1)" in result.reason
    assert result.score is None


def test_an_exception_of_the_users_code_fails_it_with_its_traceback():
    def backbone(tricks):
        raise RuntimeError("no memory\nleft")

    result = train(task(backbone=backbone), Tricks(), 0)
    assert (result.state, result.reason) == ("failed", "RuntimeError: no memory left")
    assert "def backbone" not in result.reason
    assert "in backbone" in result.traceback


def test_a_score_that_is_not_a_number_prunes_it():
    metrics = {"accuracy": lambda outputs, targets: outputs.sum() * float("nan")}
    result = train(task(metrics=metrics), Tricks(), 0)
    assert (result.state, result.score) == ("pruned", None)
    assert "val/accuracy became nan" in result.reason


@pytest.mark.parametrize("trainer", [{"limit_val_batches": 0}, {"max_steps": 1}])
def test_no_validation_is_a_failure_that_says_so(trainer):
    result = train(task(trainer=trainer), Tricks(schedule={"kind": "constant"}), 0)
    assert result.state == "failed"
    assert "no validation was run" in result.reason


@pytest.mark.parametrize("trainer", [{"num_sanity_val_steps": 2}, {"val_check_interval": 0.5}])
def test_an_epoch_is_reported_once(trainer):
    result = train(task(trainer=trainer), Tricks(), 0)
    assert [e.number for e in result.epochs] == [0, 1, 2, 3]


def test_it_leaves_at_once_when_interrupted():
    asked = iter([False] * 4 + [True] * 9)
    with pytest.raises(Interrupted):
        train(task(), Tricks(), 0, interrupted=lambda: next(asked))


class ShuffledLoaders(pl.LightningDataModule):
    """Ordinary loaders with an order from torch's random state."""

    def train_dataloader(self):
        return DataLoader(TensorDataset(*samples(24, 6)), batch_size=8, shuffle=True)

    def val_dataloader(self):
        return DataLoader(TensorDataset(*samples(12, 6, seed=1)), batch_size=12)


RESUMED = {
    "dropout and ema": {"dropout": {"kind": "dropout"}, "averaging": {"kind": "ema"}},
    "swa and patience": {
        "averaging": {"kind": "swa"},
        "stopping": {"kind": "patience", "patience": 1.0},
    },
    "plateau": {"schedule": {"kind": "plateau"}, "optimizer": {"kind": "momentum"}},
    "step": {"schedule": {"kind": "step"}, "normalization": {"kind": "weight"}},
}


@pytest.mark.parametrize("data", [small_data, ShuffledLoaders], ids=["in memory", "loaders"])
@pytest.mark.parametrize("case", RESUMED)
def test_it_goes_on_from_its_checkpoint_to_the_same_score(case, data, tmp_path, monkeypatch):
    monkeypatch.setattr(callback, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(callback, "WRITING_SHARE", 1e9)
    chosen, tricks = task(data=data(), epochs=6), Tricks(**RESUMED[case])
    checkpoint = tmp_path / "trial.ckpt"
    whole = train(chosen, tricks, 3)
    asked = iter([False] * 14 + [True])  # three batches and a validation per epoch: the fourth
    with pytest.raises(Interrupted):
        train(chosen, tricks, 3, interrupted=lambda: next(asked), checkpoint=checkpoint)
    heard, batches = [], []
    resumed = train(
        chosen,
        tricks,
        3,
        report=lambda epoch: heard.append(epoch) or False,
        interrupted=lambda: batches.append(1) or False,
        checkpoint=checkpoint,
    )
    assert heard == resumed.epochs == whole.epochs
    assert len(batches) <= 4 * (len(whole.epochs) - 3)  # the first three epochs were not trained again
    for name, value in whole.weights.items():
        assert torch.equal(resumed.weights[name], value), name


@pytest.mark.parametrize("wrong", ["recipe", "seed", "damage"])
def test_a_checkpoint_of_another_trial_is_not_gone_on_from(wrong, tmp_path, monkeypatch):
    monkeypatch.setattr(callback, "CHECKPOINT_SECONDS", 0.0)
    checkpoint = tmp_path / "trial.ckpt"
    train(task(), Tricks(), 1, checkpoint=checkpoint)
    assert checkpoint.exists()
    if wrong == "damage":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    tricks = Tricks.plain() if wrong == "recipe" else Tricks()
    seed = 2 if wrong == "seed" else 1
    assert (
        train(task(), tricks, seed, checkpoint=checkpoint).epochs == train(task(), tricks, seed).epochs
    )


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(callback, "CHECKPOINT_SECONDS", 0.0)
    (tmp_path / "file").write_text("in the place of a folder")
    result = train(task(), Tricks(), 0, checkpoint=tmp_path / "file" / "trial.ckpt")
    assert result.state == "complete"
    assert "a checkpoint could not be written" in result.warning


def test_patience_scores_the_best_epoch_and_keeps_its_weights():
    tricks = Tricks(stopping=variant("stopping", "patience", patience=1.0))
    chosen = task(monitor="val/loss", mode="min", epochs=8)
    result = train(chosen, tricks, 3)
    losses = [e.metrics["val/loss"] for e in result.epochs]
    assert result.score == min(losses)
    module = chosen.module(tricks)
    module.load_state_dict(result.weights)
    module.eval()
    inputs, targets = chosen.example()
    with torch.no_grad():
        again = float(chosen.loss(module(inputs), targets))
    assert again == pytest.approx(min(losses), rel=1e-5)


def test_nothing_is_kept_of_a_trial():
    train(task(), Tricks(), 0)
    gc.collect()
    before = sum(issubclass(type(o), nn.Module) for o in gc.get_objects())
    for seed in range(3):
        train(task(), Tricks(), seed)
    gc.collect()
    assert sum(issubclass(type(o), nn.Module) for o in gc.get_objects()) <= before + 40


WRONG = {
    "shape": ({"backbone": lambda t: nn.Linear(6, 2)}, "do not fit"),
    "inputs": ({"backbone": lambda t: mlp(inputs=7)}, "does not take inputs of shape"),
    "outputs": (
        {"backbone": lambda t: nn.Sequential(mlp(), nn.Flatten(0))},
        "do not fit|one output per sample",
    ),
    "monitor": ({"monitor": "val/acuracy"}, "never logged; must be one of"),
    "loss": (
        {"loss": lambda y, t: nn.functional.cross_entropy(y, t, reduction="none")},
        "one number",
    ),
    "metric": ({"metrics": {"accuracy": lambda y, t: y}}, "accuracy must return"),
    "raises": ({"backbone": lambda t: 1 / 0}, "backbone cannot be made: ZeroDivisionError"),
    "nothing": ({"backbone": lambda t: None}, "backbone"),
    "forward": ({"backbone": lambda t: nn.Sequential(mlp(), nn.Bilinear(1, 1, 1))}, "does not take"),
    "data": ({"data": samples(3, 6)}, "must be a LightningDataModule"),
    "loaders": ({"data": pl.LightningDataModule()}, r"dataloader\(\) must give"),
    "tricks": ({"tricks": 3}, "tricks must be Tricks"),
    "trainer": ({"trainer": {"max_epochs": 3}}, "must leave"),
    "name": ({"name": "../x"}, "a name must be"),
    "epochs": ({"epochs": 0}, "epochs must be a whole number"),
    "mode": ({"mode": "best"}, "mode must be"),
    "hidden": (
        {"backbone": lambda t: nn.Sequential(nn.Flatten(), nn.Linear(6, 3))},
        "found nothing to act on.*leave 'batch' out of normalization",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_task_is_one_clear_line_before_any_training(case):
    changes, message = WRONG[case]
    space = Space(Tricks)
    if case in ("shape", "outputs"):
        space = space.pin({"normalization": "none", "dropout": "none"})
    if case == "hidden":
        space = space.pin({"normalization": "batch"})
    with pytest.raises(InputError, match=message) as caught:
        check(task(**changes), space)
    assert "\n" not in str(caught.value)


def test_a_right_task_is_let_pass():
    assert check(task(), Space(Tricks)).notes == []
