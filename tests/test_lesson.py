"""What the tricks are good for, on real data: effects far larger than the noise, over several seeds."""

import statistics

import pytest

from lightning_tricks import MLP, Task, Tricks, train

pytestmark = pytest.mark.slow

SEEDS = (0, 1, 2)
PLAIN = {
    **{stage: trick.model_dump() for stage, trick in Tricks.plain()},
    "scaling": {"kind": "unit"},
}


def momentum(lr):
    return {"kind": "momentum", "lr": lr, "gamma": 0.9}


def results(digits, depth, epochs, seeds=SEEDS, width=128, **changes):
    network = MLP(depth=depth, width=width)
    task = Task("lesson", digits, lambda tricks: network.build((64,), 10), epochs=epochs)
    tricks = Tricks.parse({**PLAIN, **changes})
    return [train(task, tricks, seed) for seed in seeds]


def mean(found):
    return statistics.mean(result.score or 0.0 for result in found)


def test_raw_inputs_fail_where_scaled_ones_learn(digits):
    setting = {
        "depth": 2,
        "epochs": 6,
        "optimizer": momentum(0.05),
        "initialization": {"kind": "he_normal"},
    }
    assert mean(results(digits, scaling={"kind": "none"}, **setting)) < 0.3
    for kind in ("unit", "signed", "standardize"):
        assert mean(results(digits, scaling={"kind": kind}, **setting)) > 0.9


def test_in_a_deep_relu_net_he_beats_glorot_beats_one_over_n(digits):
    def score(kind):
        found = results(digits, 10, 12, optimizer=momentum(0.02), initialization={"kind": kind})
        return mean(found)

    he, glorot, gaussian = score("he_normal"), score("glorot_normal"), score("gaussian")
    assert gaussian < 0.2
    assert gaussian + 0.2 < glorot < he
    assert he > 0.9


def test_batch_norm_needs_at_most_half_the_epochs_to_95_percent(digits):
    def epochs_to_95(norm):
        found = results(
            digits,
            10,
            20,
            seeds=range(5),
            optimizer=momentum(0.03),
            initialization={"kind": "he_normal"},
            normalization={"kind": norm},
        )
        reached = [next((e.number + 1 for e in r.epochs if e.score >= 0.95), 21) for r in found]
        return statistics.mean(reached)

    assert epochs_to_95("batch") <= epochs_to_95("none") / 2


def test_dropping_four_fifths_hurts(digits):
    def score(dropout):
        return mean(
            results(digits, 2, 12, width=256, optimizer={"kind": "adam", "lr": 1e-3}, dropout=dropout)
        )

    assert score({"kind": "dropout", "p": 0.8}) < score({"kind": "none"}) - 0.005


@pytest.mark.parametrize("kind", ["norm", "unit"])
def test_without_clipping_it_diverges_and_with_theta_1_it_does_not(digits, kind):
    setting = {
        "depth": 6,
        "epochs": 4,
        "optimizer": momentum(0.5),
        "initialization": {"kind": "he_normal"},
    }
    diverged = results(digits, clipping={"kind": "none"}, **setting)
    assert sum(r.state == "pruned" and "became" in r.reason for r in diverged) >= 2
    assert all((r.score or 0.0) < 0.2 for r in diverged)  # the third learns nothing either
    clipped = results(digits, clipping={"kind": kind, "theta": 1.0}, **setting)
    assert [r.state for r in clipped] == ["complete"] * len(SEEDS)
    assert mean(clipped) > 0.5


def test_an_average_longer_than_the_run_hurts(digits):
    def score(averaging):
        return mean(results(digits, 2, 10, optimizer=momentum(0.2), averaging=averaging))

    short = score({"kind": "ema", "horizon": 0.05})
    assert short > 0.95
    assert short >= score({"kind": "ema", "horizon": 1.0}) - 0.005


def test_gradients_vanish_with_depth_and_batch_norm_brings_them_back(digits):
    """The basic problem: in a deep sigmoid-like network, almost no gradient reaches the first layer."""

    def ratio(**changes):
        found = results(digits, 10, 1, seeds=(0,), optimizer=momentum(0.02), **changes)
        return found[0].epochs[0].metrics["weights/first_to_last"]

    assert ratio(initialization={"kind": "gaussian"}) < 1e-3
    assert ratio(initialization={"kind": "he_normal"}) > 0.05
    assert ratio(initialization={"kind": "gaussian"}, normalization={"kind": "batch"}) > 0.05
