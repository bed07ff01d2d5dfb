import numpy as np
import pytest
import torch
from conftest import VARIANTS, fit, mlp, small_data, variant
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from lightning_tricks import Tricks

KINDS = [kind for stage, kind in VARIANTS if stage == "schedule"]


def rates(trick, steps, epochs, lr=1.0):
    """Return the learning rate of each step, as Lightning would set it."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    config = trick.build(optimizer, steps, epochs)
    found = []
    for step in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        ends_epoch = (step + 1) % (steps // epochs) == 0
        if config and (config["interval"] == "step" or ends_epoch):
            config["scheduler"].step()
    return np.array(found)


def reference(make, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(found)


def test_the_lessons_decay_is_a_power_of_the_epoch():
    found = rates(variant("schedule", "exponential"), steps=60, epochs=20)
    np.testing.assert_allclose(found, np.repeat(0.98 ** np.arange(20), 3))


def test_step_equals_torch():
    found = rates(variant("schedule", "step", every=0.3, gamma=0.5), steps=10, epochs=10)
    expected = reference(lambda o: lr_scheduler.StepLR(o, 3, 0.5), 10)
    np.testing.assert_allclose(found, expected)


def test_cosine_without_warm_up_equals_torch():
    found = rates(variant("schedule", "cosine", warmup=0.0), steps=40, epochs=10)
    expected = reference(lambda o: lr_scheduler.CosineAnnealingLR(o, 40), 40)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_linear_without_warm_up_equals_torch():
    found = rates(variant("schedule", "linear", warmup=0.0), steps=40, epochs=10)
    expected = reference(lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, 40), 40)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_warm_up_rises_in_a_line_and_then_the_schedule_falls():
    found = rates(variant("schedule", "cosine", warmup=0.1), steps=100, epochs=10)
    np.testing.assert_allclose(found[:10], 0.01 + 0.99 * np.arange(10) / 10)
    assert found[10] == pytest.approx(1.0)
    assert (np.diff(found[10:]) < 0).all()


def test_one_cycle_equals_torch():
    found = rates(
        variant("schedule", "one_cycle", peak=0.25, start=0.04, final=4e-6), steps=80, epochs=20
    )
    expected = reference(
        lambda o: lr_scheduler.OneCycleLR(
            o,
            1.0,
            total_steps=80,
            pct_start=0.25,
            div_factor=25,
            final_div_factor=1e4,
            cycle_momentum=False,
        ),
        80,
    )
    # torch reaches the peak one step earlier: at step 0.25·80 − 1.
    np.testing.assert_allclose(found.max(), expected.max(), rtol=1e-3)
    np.testing.assert_allclose(found, expected, atol=0.07)
    assert abs(int(found.argmax()) - int(expected.argmax())) <= 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "plateau"])
@given(epochs=st.integers(1, 50), per_epoch=st.integers(1, 7))
def test_every_rate_is_positive_and_at_most_the_base_rate(kind, epochs, per_epoch):
    found = rates(variant("schedule", kind), epochs * per_epoch, epochs)
    assert (found > 0).all()
    assert (found <= 1 + 1e-12).all()


def test_plateau_lowers_the_rate_when_the_loss_does_not_fall():
    tricks = Tricks(
        optimizer={"kind": "sgd", "lr": 1e-9},  # nothing is learned
        normalization={"kind": "none"},  # nor do running statistics change the loss
        schedule={"kind": "plateau", "patience": 0.1, "gamma": 0.5},
    )
    module = fit(tricks, mlp(), small_data(), epochs=10)
    assert module.optimizers().param_groups[0]["lr"] < 0.5e-9


def test_the_length_follows_from_the_full_budget():
    early = rates(variant("schedule", "cosine"), 40, 10)[:20]
    short = rates(variant("schedule", "cosine"), 20, 5)
    assert early[-1] > 0.3 > short[-1]
