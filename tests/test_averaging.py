"""Three ways in which averaging makes scores wrong elsewhere, and the formulas."""

import pytest
import pytorch_lightning as pl
import torch
from conftest import Demanding, fit, mlp, small_data, trainer, variant
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision import models

from lightning_tricks import InMemoryData, ModuleTricks, Split, Task, Tricks, TricksModule, train
from lightning_tricks.surgery.batch_norm import TrainingBatches, refresh_statistics
from lightning_tricks.tricks.averaging import StochasticWeightAveraging, WeightAveraging

KINDS = [("ema", {"horizon": 0.2}), ("swa", {"start": 0.5})]


class Recorder(pl.Callback):
    """Keep the raw weights after each step, and the module's weights at each validation."""

    def __init__(self):
        self.steps, self.epoch_ends, self.validated, self.saved = [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, *unused):
        self.steps.append(copy(pl_module))
        if trainer.is_last_batch:
            self.epoch_ends.append(copy(pl_module))

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.validated.append((copy(pl_module), float(trainer.callback_metrics["val/loss"])))


def copy(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def run(kind, fields, epochs=4, norm="none", **options):
    tricks = Tricks(averaging={"kind": kind, **fields}, normalization={"kind": norm})
    recorder = Recorder()
    module = TricksModule(mlp(), tricks)
    runner = trainer(epochs, callbacks=[recorder], **options)
    runner.fit(module, datamodule=small_data())
    return module, recorder, runner


def same(ours, theirs):
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("epochs", [2, 8, 50])
@pytest.mark.parametrize("start", [0.0, 0.5, 0.9, 0.99])
def test_swa_is_never_the_mean_of_one_epoch(epochs, start):
    swa = StochasticWeightAveraging(start=start)
    included = [at for at in range(1, epochs + 1) if swa.weight(0, float(at), epochs, 100)]
    assert included == list(range(included[0], epochs + 1))
    assert len(included) == max(epochs - int(start * epochs), 2)


def test_swa_is_the_mean_of_the_epoch_ends_the_last_included():
    module, recorder, _ = run("swa", {"start": 0.5})
    last = recorder.epoch_ends[2:]
    same(copy(module), {name: (last[0][name] + last[1][name]) / 2 for name in last[0]})


def test_ema_equals_torch_once_it_is_warm():
    module, recorder, _ = run("ema", {"horizon": 0.25})  # 12 steps: an average over 3
    reference = nn.ParameterDict(
        {name.replace(".", "_"): value for name, value in recorder.steps[0].items()}
    )
    averaged = AveragedModel(reference, multi_avg_fn=get_ema_multi_avg_fn(1 - 1 / 3))
    mean = {name: sum(step[name] for step in recorder.steps[:3]) / 3 for name in recorder.steps[0]}
    for source in (mean, *recorder.steps[3:]):
        for name, value in source.items():
            reference[name.replace(".", "_")].data.copy_(value)
        averaged.update_parameters(reference)
    same(
        copy(module),
        {name: averaged.module[name.replace(".", "_")].detach() for name in recorder.steps[0]},
    )


@pytest.mark.parametrize(("kind", "fields"), KINDS)
def test_what_is_validated_last_is_what_is_left_and_what_was_logged(kind, fields):
    module, recorder, runner = run(kind, fields, norm="batch")
    same(copy(module), recorder.validated[-1][0])
    logged = recorder.validated[-1][1]
    again = trainer(1).validate(module, small_data(), verbose=False)[0]["val/loss"]
    assert again == pytest.approx(logged, rel=1e-5)
    assert float(runner.callback_metrics["val/loss"]) == pytest.approx(logged, rel=1e-6)


def test_before_an_average_has_begun_the_weights_themselves_are_validated():
    _, recorder, _ = run("swa", {"start": 0.5})
    same(recorder.validated[0][0], recorder.epoch_ends[0])
    same(recorder.validated[1][0], recorder.epoch_ends[1])


@pytest.mark.parametrize(("kind", "fields"), KINDS)
def test_training_goes_on_from_the_raw_weights(kind, fields):
    _, with_average, _ = run(kind, fields, norm="batch")
    torch.manual_seed(0)
    pl.seed_everything(0, verbose=False)
    _, without, _ = run("none", {}, norm="batch")
    pl.seed_everything(0, verbose=False)
    _, again, _ = run(kind, fields, norm="batch")
    for one, other in zip(without.steps, again.steps, strict=True):
        same(one, other)
    assert len(with_average.steps) == len(again.steps)


@pytest.mark.parametrize(("kind", "fields"), KINDS)
def test_what_is_saved_is_the_average(kind, fields, tmp_path):
    module, recorder, runner = run(
        kind, fields, norm="batch", enable_checkpointing=True, default_root_dir=tmp_path
    )
    saved = torch.load(runner.checkpoint_callback.best_model_path, weights_only=True)
    same(saved["state_dict"], copy(module))
    fresh = TricksModule.load_from_checkpoint(runner.checkpoint_callback.best_model_path, backbone=mlp())
    assert fresh.tricks == module.tricks
    logged = recorder.validated[-1][1]
    assert trainer(1).validate(fresh, small_data(), verbose=False)[0]["val/loss"] == pytest.approx(
        logged, rel=1e-5
    )


def test_early_stopping_does_not_discard_the_average():
    tricks = Tricks(
        averaging={"kind": "ema", "horizon": 0.2},
        stopping={"kind": "patience", "patience": 0.25},
        normalization={"kind": "none"},
    )
    recorder = Recorder()
    module = TricksModule(mlp(), tricks, monitor="val/loss", mode="min")
    trainer(8, callbacks=[recorder]).fit(module, datamodule=small_data())
    best = min(recorder.validated, key=lambda pair: pair[1])
    same(copy(module), best[0])


def test_statistics_of_batch_norm_are_those_of_the_averaged_weights():
    module, _, runner = run("swa", {"start": 0.0}, norm="batch")
    inputs = small_data().splits["train"].inputs
    norm = next(m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    with torch.no_grad():
        entering = nn.Linear.forward(module.backbone[0], module.scaling(inputs))
    torch.testing.assert_close(norm.running_mean, entering.mean(0), rtol=1e-3, atol=1e-4)
    assert any(isinstance(callback, WeightAveraging) for callback in runner.callbacks)


def test_refreshing_leaves_modes_momentum_and_dropout_alone():
    backbone = nn.Sequential(
        nn.Linear(6, 4), nn.Dropout(0.5), nn.BatchNorm1d(4, momentum=0.3), nn.Linear(4, 3)
    )
    tricks = Tricks.plain().model_dump() | {
        "normalization": {"kind": "own"},
        "dropout": {"kind": "dropout", "p": 0.5},
    }
    module = TricksModule(backbone, tricks)
    runner = trainer(1, callbacks=[TrainingBatches()])
    runner.fit(module, datamodule=small_data())
    linear, dropout, norm, _ = module.backbone.train()
    dropout.eval()
    state = torch.get_rng_state()
    refresh_statistics(runner, module)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in module.backbone] == [True, False, True, True]
    assert norm.momentum == 0.3
    with torch.no_grad():
        expected = linear(small_data().splits["train"].inputs).mean(0)
    torch.testing.assert_close(norm.running_mean, expected)


@pytest.mark.parametrize(("kind", "fields"), KINDS)
def test_a_layer_that_stands_in_two_places_is_averaged_as_one(kind, fields):
    shared = nn.Linear(6, 6)
    backbone = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(6, 3))
    tricks = Tricks.plain().model_dump() | {"averaging": {"kind": kind, **fields}}
    recorder = Recorder()
    module = TricksModule(backbone, tricks)
    trainer(4, callbacks=[recorder]).fit(module, datamodule=small_data())
    weights = torch.stack([step["backbone.0.weight"] for step in recorder.steps])
    averaged = module.backbone[0].weight
    assert (averaged - weights[0]).norm() > 1e-3
    assert (
        (averaged - weights[6:].mean(0)).norm() < (weights[0] - weights[6:].mean(0)).norm() / 2
    ).item()


def test_a_buffer_that_is_no_statistic_is_as_training_left_it():
    class Counting(nn.Sequential):
        def __init__(self, *layers):
            super().__init__(*layers)
            self.register_buffer("steps", torch.zeros(()))

        def forward(self, inputs):
            if self.training:
                self.steps += 1
            for layer in self:
                inputs = layer(inputs)
            return inputs

    module = TricksModule(Counting(*mlp()), Tricks(averaging={"kind": "ema"}))
    trainer(3).fit(module, datamodule=small_data())
    assert module.backbone.steps == 3 * 3


def test_a_horizon_is_a_share_of_the_budget():
    trick = variant("averaging", "ema", horizon=0.1)
    assert trick.weight(updates=10_000, epoch=5, epochs=10, steps=500) == pytest.approx(1 / 50)
    assert trick.weight(updates=0, epoch=0, epochs=10, steps=500) == 1.0


def test_accumulated_batches_count_as_one_step():
    module, recorder, _ = run("ema", {"horizon": 1.0}, epochs=2, accumulate_grad_batches=3)
    ends = recorder.epoch_ends  # three batches per epoch make one step
    same(copy(module), {name: (ends[0][name] + ends[1][name]) / 2 for name in ends[0]})


def test_the_module_is_usable_by_name_of_its_hyperparameters():
    module = fit(Tricks(averaging={"kind": "ema"}), mlp())
    assert Tricks.parse(module.hparams["tricks"]) == module.tricks


@pytest.mark.parametrize("stopping", ["none", "patience"])
@pytest.mark.parametrize(("kind", "fields"), [*KINDS, ("none", {})])
def test_nothing_that_a_state_carries_is_lost(kind, fields, stopping, tmp_path):
    tricks = Tricks(
        averaging={"kind": kind, **fields},
        stopping={"kind": stopping},
        normalization={"kind": "weight"},  # a parametrization
    )
    module = TricksModule(Demanding(*mlp()), tricks)
    runner = trainer(2, enable_checkpointing=True, default_root_dir=tmp_path)
    runner.fit(module, datamodule=small_data())
    path = runner.checkpoint_callback.best_model_path
    fresh = TricksModule.load_from_checkpoint(path, backbone=Demanding(*mlp()))
    assert fresh.backbone.passes == 2 * 3  # batches
    resumed = TricksModule(Demanding(*mlp()), tricks)
    trainer(4).fit(resumed, datamodule=small_data(), ckpt_path=path)
    if stopping == "none":  # with patience, the count is that of the best epoch
        assert resumed.backbone.passes == 4 * 3
    assert all(torch.isfinite(p).all() for p in resumed.parameters())


@pytest.mark.parametrize(("kind", "fields"), KINDS)
def test_a_network_that_asks_for_the_version_of_its_state_is_averaged(kind, fields):
    generator = torch.Generator().manual_seed(0)
    splits = [
        Split(torch.randn(4, 3, 32, 32, generator=generator), torch.arange(4) % 3) for _ in range(2)
    ]
    tricks = Tricks(averaging={"kind": kind, **fields})
    module = TricksModule(models.mnasnet0_5(num_classes=3), tricks)
    trainer(2).fit(module, datamodule=InMemoryData(*splits, batch_size=2))
    assert all(torch.isfinite(p).all() for p in module.parameters())


@pytest.mark.parametrize(("kind", "fields"), KINDS)
def test_an_average_that_was_read_goes_where_the_weights_are(kind, fields, tmp_path):
    """Lightning reads a checkpoint before it moves the module: here, to a device without values."""
    module, _, runner = run(
        kind, fields, norm="batch", enable_checkpointing=True, default_root_dir=tmp_path
    )
    checkpoint = torch.load(runner.checkpoint_callback.best_model_path, weights_only=True)
    callback = WeightAveraging(module.tricks.averaging)
    callback.on_load_checkpoint(runner, module, checkpoint)
    callback.load_state_dict({"updates": 3, "steps": 3, "refreshed": 3})
    module.to("meta")
    callback.on_train_start(runner, module)
    callback._update(module, 0.5)
    callback.refreshed = callback.updates  # the meta device cannot take a batch
    callback.on_validation_start(runner, module)
    callback.on_validation_end(runner, module)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("kind", "fields"), KINDS)
def test_on_a_gpu_an_average_goes_on_from_a_checkpoint(kind, fields, tmp_path):
    tricks = Tricks(averaging={"kind": kind, **fields})
    runner = trainer(2, accelerator="gpu", enable_checkpointing=True, default_root_dir=tmp_path)
    runner.fit(TricksModule(mlp(), tricks), datamodule=small_data())
    module = TricksModule(mlp(), tricks)
    path = runner.checkpoint_callback.best_model_path
    trainer(4, accelerator="gpu").fit(module, datamodule=small_data(), ckpt_path=path)
    assert all(torch.isfinite(p).all() for p in module.parameters())


class Transferred(pl.LightningModule):
    """A head on a body whose batch norm keeps its statistics, or whose training has a second output."""

    def __init__(self, how):
        super().__init__()
        self.how, self.head = how, nn.Linear(4, 3)
        self.body = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
        self.body[1].running_mean.fill_(3)
        if how == "in init":
            self.body.eval()

    def forward(self, inputs):
        if self.how == "in forward":
            self.body.eval()
        outputs = self.head(self.body(inputs))
        return (outputs, outputs) if self.training and self.how == "two outputs" else outputs

    def training_step(self, batch, batch_idx):
        outputs = self(batch[0])
        if self.how == "two outputs":
            outputs, _ = outputs
        return nn.functional.cross_entropy(outputs, batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


@pytest.mark.parametrize("how", ["in init", "in forward", "two outputs"])
@pytest.mark.parametrize(
    "stages", [{"averaging": "ema"}, {"averaging": "swa"}, {"optimizer": "schedule_free"}]
)
def test_averages_gather_the_statistics_that_training_gathers_and_no_others(how, stages):
    recipe = ModuleTricks(**stages, schedule="constant")
    task = Task(
        "own",
        small_data(),
        lambda tricks: Transferred(how),
        tricks=ModuleTricks,
        monitor="val_loss",
        epochs=2,
    )
    result = train(task, recipe, 0)
    assert result.state == "complete"
    mean = result.weights["body.1.running_mean"]
    assert torch.equal(mean, torch.full((4,), 3.0)) == (how != "two outputs")
