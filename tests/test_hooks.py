"""Tricks for the user's own LightningModule, and for tasks other than classification."""

import itertools
import pickle

import cloudpickle
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import torchmetrics
from conftest import in_order, mlp, optimize, samples, small_data, trainer
from sklearn.datasets import load_diabetes
from torch import nn

from lightning_tricks import (
    MLP,
    InMemoryData,
    InputError,
    ModuleTricks,
    Space,
    Task,
    Tricks,
    TricksModule,
    create_study,
    with_tricks,
)
from lightning_tricks.search.outcomes import counted
from lightning_tricks.task.checks import check


class Own(pl.LightningModule):
    """A module as people write it: with its own names, steps and loss."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(6, 8)
        self.head = nn.Linear(8, 3)
        self.mode = "a name that others use too"
        self.called = []

    def forward(self, inputs):
        return self.head(F.relu(self.encoder(inputs)))

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        return {"loss": F.cross_entropy(self(inputs), targets), "more": 1}

    def validation_step(self, batch, batch_idx):
        inputs, targets = batch
        self.log("own_loss", F.cross_entropy(self(inputs), targets))

    def on_fit_start(self):
        self.called.append("fit")

    def on_train_epoch_end(self):
        self.called.append("epoch")

    def configure_callbacks(self):
        return pl.callbacks.LearningRateMonitor() if self.trainer.logger else []

    def configure_optimizers(self):
        raise AssertionError("the tricks have their own")


OFF = ModuleTricks.plain()


def fitted(tricks, epochs=2, **options):
    module = with_tricks(Own(), tricks, monitor="own_loss", validation_loss="own_loss")
    trainer(epochs, **options).fit(module, datamodule=small_data())
    return module


def test_a_users_module_is_copied_and_keeps_what_it_is():
    own = Own()
    changed = with_tricks(own, ModuleTricks(normalization="batch", dropout="dropout"))
    assert isinstance(changed, Own)
    assert [type(m).__name__ for m in in_order([changed.encoder])] == ["Linear", "LastBatchNorm"]
    assert [type(m).__name__ for m in in_order([changed.head])] == ["UniformDropout", "Linear"]
    assert in_order([own.encoder, own.head]) == [own.encoder, own.head]
    assert type(own) is Own
    assert changed.mode == own.mode


def test_its_hooks_are_called_beside_ours():
    module = fitted(ModuleTricks())
    assert module.called == ["fit", "epoch", "epoch"]
    assert module.trainer.callback_metrics["weights/gradient_norm"] > 0
    assert module.trainer.callback_metrics["train/loss"] > 0


class Stepping(Own):
    """Steps its schedule itself, as Lightning's documentation does for manual optimization."""

    def on_train_epoch_end(self):
        schedule = self.lr_schedulers()
        self.called.append(schedule.get_last_lr()[0])
        schedule.step()

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        halves = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        return [optimizer], [{"scheduler": halves, "frequency": 10**6}]


@pytest.mark.parametrize(
    ("tricks", "factor"),
    [
        (ModuleTricks.yours(), 0.5),
        (ModuleTricks(schedule={"kind": "exponential", "gamma": 0.9}), 0.9),
        (ModuleTricks(schedule={"kind": "constant"}), 1.0),
    ],
)
def test_a_module_steps_its_own_schedule_and_not_that_of_the_tricks(tricks, factor):
    module = with_tricks(Stepping(), tricks, monitor="own_loss", validation_loss="own_loss")
    trainer(3).fit(module, datamodule=small_data())
    rates = [one for one in module.called if isinstance(one, float)]
    assert len(rates) == 3
    assert [late / early for early, late in itertools.pairwise(rates)] == pytest.approx([factor] * 2)


def test_with_every_trick_off_it_trains_as_plain_sgd_does():
    torch.manual_seed(0)
    own = Own()
    torch.manual_seed(3)
    module = with_tricks(own, OFF, monitor="own_loss")
    trainer(1).fit(module, datamodule=small_data())
    optimizer = torch.optim.SGD(own.parameters(), lr=OFF.optimizer.lr)
    split = small_data().splits["train"]
    for index in torch.randperm(24, generator=torch.Generator().manual_seed(3)).split(8):
        optimizer.zero_grad()
        own.training_step((split.inputs[index], split.targets[index]), 0)["loss"].backward()
        optimizer.step()
    for ours, theirs in zip(module.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "stage",
    [
        {"schedule": {"kind": "plateau"}},
        {"stopping": {"kind": "patience"}},
        {"averaging": {"kind": "ema"}},
        {"sharpness": {"kind": "sam"}},
        {"optimizer": {"kind": "schedule_free"}},
        {"normalization": {"kind": "weight"}},
    ],
    ids=lambda stage: next(iter(stage)),
)
def test_every_kind_of_hook_works_on_it(stage):
    module = fitted(ModuleTricks(**stage), epochs=3)
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_it_can_be_pickled():
    module = with_tricks(Own(), ModuleTricks(), monitor="own_loss").eval()
    again = pickle.loads(cloudpickle.dumps(module))
    inputs, _ = samples(4, 6)
    torch.testing.assert_close(again(inputs), module(inputs))


@pytest.mark.parametrize("stage", ["scaling", "smoothing", "mixing"])
def test_a_trick_that_needs_a_forward_of_ours_is_an_error(stage):
    kind = {"scaling": "unit", "smoothing": "label_smoothing", "mixing": "mixup"}[stage]
    tricks = OFF.model_dump() | {stage: {"kind": kind}}
    with pytest.raises(InputError, match=f"{stage} '{kind}' needs a forward of TricksModule"):
        with_tricks(Own(), tricks)


def test_manual_optimization_is_an_error():
    own = Own()
    own.automatic_optimization = False
    with pytest.raises(InputError, match="Own has automatic_optimization off"):
        with_tricks(own, OFF)


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.filterwarnings("ignore:normalization 'batch' stays before")  # a trial may ask for `after`
def test_a_study_of_a_users_module():
    task = Task(
        "own",
        small_data(),
        lambda tricks: Own(),
        tricks=ModuleTricks,
        epochs=2,
        monitor="own_loss",
        mode="min",
    )
    study = create_study("own", storage=None, direction="minimize", epochs=2)
    summary = optimize(study, task, n_trials=3, workers="inline", progress=False)
    assert {t.state.name for t in study.trials} == {"COMPLETE"}
    assert counted(study.trials) == 3
    assert "own_loss" in summary.text()


def test_what_needs_a_forward_of_ours_is_left_out_of_a_study_of_a_users_module():
    task = Task("own", small_data(), lambda tricks: Own(), monitor="own_loss", mode="min", epochs=2)
    checked = check(task, Space(Tricks))
    assert checked.space.domains["scaling"].extremes() == ("none",)
    assert "left out of the search: scaling unit, signed, standardize" in checked.notes[-1]
    with pytest.raises(InputError, match="use tricks=ModuleTricks"):
        check(task, Space(Tricks).pin({"scaling": "unit"}))


def diabetes():
    inputs, targets = load_diabetes(return_X_y=True)
    return InMemoryData.from_arrays(inputs, targets / 100, regression=True)


@pytest.mark.usefixtures("without_mlflow")
def test_regression_with_a_metric_of_torchmetrics():
    """scikit-learn's R² of the whole split is not a mean over batches."""
    from sklearn.metrics import r2_score

    data = diabetes()
    task = Task(
        "diabetes",
        data,
        lambda tricks: MLP(depth=1, width=32).build((10,), data.outputs),
        epochs=20,
        loss=F.mse_loss,
        metrics={"r2": torchmetrics.R2Score()},
        monitor="val/r2",
    )
    check(task, Space(Tricks))
    study = create_study("diabetes", storage=None, epochs=20)
    optimize(study, task, n_trials=3, workers="inline", progress=False)
    assert study.best_value > 0.25

    module = task.module(Tricks())
    fit = trainer(5)
    fit.fit(module, datamodule=data)
    split = data.splits["validation"]
    expected = r2_score(split.targets.numpy(), module.eval()(split.inputs).detach().numpy())
    assert float(fit.callback_metrics["val/r2"]) == pytest.approx(expected, abs=1e-4)


def test_targets_of_a_regression_are_kept_as_columns():
    data = diabetes()
    assert data.outputs == 1
    assert data.splits["train"].targets.shape[1:] == (1,)
    two = InMemoryData(*[(samples(9, 4).inputs, torch.randn(9, 2))] * 2, regression=True)
    assert two.outputs == 2
    with pytest.raises(InputError, match="targets must be finite"):
        InMemoryData(*[(samples(2, 4).inputs, [1.0, float("nan")])] * 2, regression=True)


def test_a_metric_that_remembers_starts_anew_each_epoch():
    metric = torchmetrics.classification.MulticlassAccuracy(num_classes=3, average="micro")
    module = TricksModule(mlp(), Tricks(), metrics={"accuracy": metric})
    fit = trainer(3)
    fit.fit(module, datamodule=small_data())
    inputs, targets = small_data().splits["validation"]
    right = (module.eval()(inputs).argmax(1) == targets).float().mean()
    assert float(fit.callback_metrics["val/accuracy"]) == pytest.approx(float(right))
    assert metric.update_count == 0  # the user's own metric is unchanged


class Scaling(Own):
    """Changes its inputs in a training step that takes no batch number."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, inputs):
        return self.network(inputs)

    def training_step(self, batch):
        self.log("own", 1.0)
        return F.cross_entropy(self(batch["inputs"] * 10 + 50), batch["targets"])

    def validation_step(self, batch, batch_idx):
        self.log("own_loss", F.cross_entropy(self(batch["inputs"] * 10 + 50), batch["targets"]))


def dictionaries():
    inputs, targets = small_data().splits["train"]
    rows = [{"inputs": i, "targets": t} for i, t in zip(inputs, targets, strict=True)]
    return torch.utils.data.DataLoader(rows, batch_size=8)


def test_statistics_are_gathered_by_the_users_own_training_step():
    """From batches of any form, and from the inputs that the network gets in training."""
    tricks = ModuleTricks(averaging="ema", normalization="batch")
    module = with_tricks(Scaling(), tricks, monitor="own_loss", validation_loss="own_loss")
    trainer(2).fit(module, dictionaries(), dictionaries())
    linear, norm = in_order(module.network)[:2]
    with torch.no_grad():
        expected = nn.Linear.forward(linear, small_data().splits["train"].inputs * 10 + 50).mean(0)
    torch.testing.assert_close(norm.running_mean, expected, rtol=1e-4, atol=1e-4)


def test_parameters_without_gradient_and_steps_without_loss_are_borne():
    class Sparse(Own):
        def __init__(self):
            super().__init__()
            self.other = nn.Linear(8, 3)

        def training_step(self, batch, batch_idx):
            if batch_idx == 0:
                return None
            hidden = F.relu(self.encoder(batch[0]))
            head = self.head if batch_idx == 1 else self.other
            return F.cross_entropy(head(hidden), batch[1])

    module = with_tricks(Sparse(), OFF, monitor="own_loss")
    trainer(2).fit(module, datamodule=small_data())
    assert module.trainer.callback_metrics["weights/gradient_norm"] > 0


def test_names_that_tricks_need_are_told():
    class Named(Own):
        def __init__(self):
            super().__init__()
            self.tricks = "many"

    with pytest.raises(InputError, match=r"Named defines \['tricks'\]"):
        with_tricks(Named(), OFF)

    class Ancestor(Own):
        def parameter_groups(self):
            return []

    class Heir(Ancestor):
        def __init__(self):
            super().__init__()
            self._health = 3

    with pytest.raises(InputError, match=r"Heir defines \['_health', 'parameter_groups'\]"):
        with_tricks(Heir(), OFF)


@pytest.mark.parametrize(
    ("outputs", "loss", "message"),
    [
        (1, F.cross_entropy, "another loss, metrics and monitor"),
        (2, F.mse_loss, "outputs of the same shape"),
    ],
)
def test_a_regression_with_the_wrong_outputs_or_loss_is_an_error(outputs, loss, message):
    data = diabetes()
    task = Task(
        "wrong",
        data,
        lambda tricks: MLP(depth=1).build((10,), outputs),
        loss=loss,
        metrics={},
        monitor="val/loss",
        mode="min",
    )
    with pytest.raises(InputError, match=message):
        check(task, Space(Tricks))


class Unusual(pl.LightningModule):
    """Names the arguments of its steps freely, as Lightning allows."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    def training_step(self, b, i):
        assert isinstance(i, int)
        return F.cross_entropy(self.net(b[0]), b[1])

    def validation_step(self, b, i):
        self.log("val/loss", F.cross_entropy(self.net(b[0]), b[1]))


@pytest.mark.parametrize(
    ("stage", "kind"), [("averaging", "ema"), ("averaging", "swa"), ("optimizer", "schedule_free")]
)
def test_statistics_are_gathered_whatever_a_step_calls_its_arguments(stage, kind):
    changed = with_tricks(Unusual(), ModuleTricks(**{stage: kind}))
    trainer(2).fit(changed, small_data())
    assert torch.isfinite(changed.net[1].running_var).all()
