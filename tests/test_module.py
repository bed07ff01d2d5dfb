import pytest
import pytorch_lightning as pl
import torch
from conftest import fit, mlp, samples, small_data, trainer, variant
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_tricks import Diverged, InputError, Tricks, TricksModule
from lightning_tricks.module.health import GradientHealth, ends, figures

LOGGED = {
    "train/loss",
    "val/loss",
    "val/accuracy",
    "weights/gradient_norm",
    "weights/steps_clipped",
    "weights/first_to_last",
}


def test_it_is_an_ordinary_lightning_module_with_ordinary_loaders(tmp_path):
    loader = DataLoader(TensorDataset(*samples(24, 6)), batch_size=8, shuffle=True)
    module = TricksModule(mlp(), Tricks(averaging={"kind": "swa"}))
    checkpoint = ModelCheckpoint(tmp_path, monitor="val/accuracy", mode="max")
    run = trainer(3, callbacks=[checkpoint], enable_checkpointing=True)
    run.fit(module, loader, loader)
    assert set(run.callback_metrics) >= LOGGED
    assert run.test(module, loader, verbose=False)[0].keys() == {"test/loss", "test/accuracy"}
    predicted = torch.cat(run.predict(module, loader))
    assert predicted.shape == (24, 3)


def test_a_custom_loss_and_metric():
    module = TricksModule(
        nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1), nn.Flatten(0)),
        Tricks(),
        loss=lambda y, t: nn.functional.mse_loss(y, t.float()),
        metrics={"mae": lambda y, t: (y - t).abs().mean()},
        monitor="val/mae",
        mode="min",
    )
    run = trainer(2)
    run.fit(module, datamodule=small_data())
    assert "val/mae" in run.callback_metrics


def test_tricks_may_be_plain_data():
    assert TricksModule(mlp(), Tricks().model_dump()).tricks == Tricks()
    with pytest.raises(InputError, match=r"clipping.norm.theta: .*\(got -1\)"):
        TricksModule(mlp(), {"clipping": {"kind": "norm", "theta": -1}})


def test_clipping_twice_is_an_error():
    with pytest.raises(InputError, match="leave gradient_clip_val of the Trainer at None"):
        fit(Tricks(), mlp(), gradient_clip_val=1.0)


def test_a_schedule_needs_the_length_of_training():
    with pytest.raises(InputError, match="set max_epochs"):
        trainer(-1).fit(TricksModule(mlp(), Tricks()), datamodule=small_data())


@pytest.mark.parametrize("epochs", [-1, 50])
@pytest.mark.parametrize("schedule", ["cosine", "exponential", "step"])
def test_a_schedule_spans_the_steps_if_they_end_training_first(epochs, schedule):
    """Its learning rates are those of as many epochs."""

    def rates(*length, **options):
        tricks = Tricks(schedule={"kind": schedule}, averaging={"kind": "ema"})
        seen, module, run = [], TricksModule(mlp(), tricks), trainer(*length, **options)
        module.on_train_batch_start = lambda *_: seen.append(run.optimizers[0].param_groups[0]["lr"])
        run.fit(module, datamodule=small_data())
        return seen

    by_epochs = rates(4)
    assert rates(epochs, max_steps=len(by_epochs)) == by_epochs
    assert len(set(by_epochs)) > 1


def test_raw_huge_inputs_diverge_and_say_where():
    data = small_data()
    data.splits["train"].inputs.mul_(1e30)
    with pytest.raises(Diverged, match=r"became (nan|inf) at training step \d+"):
        fit(Tricks.plain(), mlp(), data)


def test_the_weights_before_a_divergence_are_kept_finite():
    data = small_data()
    module = TricksModule(
        mlp(),
        Tricks.plain().model_copy(update={"optimizer": variant("optimizer", "sgd", lr=1e20)}),
    )
    with pytest.raises(Diverged):
        trainer(20).fit(module, datamodule=data)
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_gradient_health_is_that_of_the_gradients_before_clipping():
    seen = []

    class Watch(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            seen.append([p.grad.norm().item() for p in pl_module.parameters()])

    tricks = Tricks(normalization={"kind": "none"}, clipping={"kind": "norm", "theta": 0.5})
    module = fit(tricks, mlp(), callbacks=[Watch()], num_sanity_val_steps=0)
    norms = torch.tensor(seen)
    total = norms.square().sum(1).sqrt()
    found = module.epoch_metrics
    assert found["weights/gradient_norm"] == pytest.approx(total.mean().item(), rel=1e-5)
    assert found["weights/steps_clipped"] == pytest.approx((total > 0.5).float().mean().item())
    expected = norms[:, 0].mean() / norms[:, 4].mean()
    assert found["weights/first_to_last"] == pytest.approx(expected.item(), rel=1e-5)


def test_under_weight_norm_the_first_and_the_last_layers_directions_are_compared():
    seen = []

    class Watch(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            held = [pl_module.backbone[index].parametrizations.weight for index in (0, 4)]
            seen.append([weight.original1.grad.norm().item() for weight in held])

    tricks = Tricks(normalization={"kind": "weight"})
    module = fit(tricks, mlp(), callbacks=[Watch()], num_sanity_val_steps=0)
    first, last = torch.tensor(seen).mean(0)
    assert module.epoch_metrics["weights/first_to_last"] == pytest.approx(float(first / last), rel=1e-5)


@pytest.mark.parametrize("utilities", [nn.utils.parametrizations, nn.utils])
def test_the_weights_of_both_ends_are_found_under_spectral_norm(utilities):
    module, wrap = mlp(), utilities.spectral_norm
    wrap(module[0])
    wrap(module[4])
    parameters = list(module.parameters())
    first, last = (parameters[place] for place in ends(module, parameters))
    assert (first.shape, last.shape) == (module[0].weight.shape, module[4].weight.shape)


def test_gradients_that_reach_no_last_layer_have_a_ratio_of_0():
    assert figures(1.0, 2.0, 0.0, first=0.5, last=0.0)["weights/first_to_last"] == 0.0
    assert figures(1.0, 2.0, 0.0, first=0.5, last=0.25)["weights/first_to_last"] == 2.0


def test_health_of_no_step_is_empty():
    assert GradientHealth().summary((0, 0)) == {}


def test_on_an_accelerator_divergence_is_seen_by_the_end_of_the_epoch():
    health = GradientHealth()
    health._losses.append(torch.tensor(float("nan")))
    health._norms.append(torch.ones(2))
    health._clipped.append(torch.tensor(False))
    with pytest.raises(Diverged, match="loss became nan"):
        health.summary((0, 1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_trick_on_a_gpu():
    from lightning_tricks.space.trick import stages

    for stage, options in stages(Tricks).items():
        for kind in options:
            module = fit(Tricks(**{stage: {"kind": kind}}), mlp(), accelerator="gpu", devices=1)
            assert all(torch.isfinite(p).all() for p in module.parameters())


def test_features_beside_the_outputs_are_no_auxiliary_head():
    class Both(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.body, self.head, self.other = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, width)

        def forward(self, inputs):
            hidden = self.body(inputs)
            return self.head(hidden), self.other(hidden)

    inputs, targets = samples(8, 6)
    loss = nn.functional.cross_entropy
    for width in (3, 5):
        module = TricksModule(Both(width), Tricks.plain())
        outputs, beside = module(inputs)
        expected = loss(outputs, targets) + (0.3 * loss(beside, targets) if width == 3 else 0)
        torch.testing.assert_close(module.learned_loss((inputs, targets)), expected)
