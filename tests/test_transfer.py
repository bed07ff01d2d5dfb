"""Pretrained networks: nothing of them is lost without a message."""

import copy
import warnings

import pytest
import torch
from conftest import mlp, optimize, samples, small_data, trainer, variant
from test_checks import Own
from torch import nn

from lightning_tricks import ModuleTricks, Space, Task, Tricks, TricksModule, create_study, with_tricks
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.task.checks import check

pytestmark = pytest.mark.usefixtures("with_store")


def pretrained():
    """Return a pretrained network, with trained weights and norms."""
    torch.manual_seed(7)
    layers = [
        nn.Linear(6, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
    ]
    network = nn.Sequential(*layers, nn.Linear(8, 3))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    inputs, targets = samples(64, 6)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), targets).backward()
        optimizer.step()
    return network.eval()


def same_state(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (
            {"initialization": "he_normal"},
            "initialization 'he_normal' draws new weights and normalization 'batch' takes",
        ),
        ({"initialization": {"kind": "keep"}}, r"1 has learned\), and normalization 'batch' takes"),
        (
            {"initialization": "he_normal", "normalization": "own"},
            "and initialization 'he_normal' draws new weights:",
        ),
    ],
)
def test_weights_that_are_about_to_be_lost_are_warned_of(stages, words):
    with pytest.warns(UserWarning, match=f"{words}.*start from Tricks.fine_tuning"):
        TricksModule(pretrained(), Tricks(**stages))


def test_a_network_that_was_never_trained_is_not_warned_of():
    from torchvision.models import convnext_tiny, resnet18

    for network in (mlp(), resnet18(weights=None, zero_init_residual=True), convnext_tiny(weights=None)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            TricksModule(network, Tricks())


def test_fine_tuning_begins_with_what_the_network_has_learned():
    network = pretrained()
    module = TricksModule(network, Tricks.fine_tuning())
    assert same_state(module.backbone, network)
    own = Own()
    own.network = network
    assert same_state(with_tricks(own, ModuleTricks.fine_tuning()).network, network)


def test_statistics_of_norms_go_on_from_those_that_were_learned():
    network = pretrained()
    for norm in (network[1], network[4]):
        norm.momentum = 0.0
    module = TricksModule(network, Tricks.fine_tuning())
    trainer(2).fit(module, datamodule=small_data())
    assert torch.equal(module.backbone[1].running_mean, network[1].running_mean)
    assert not torch.equal(module.backbone[0].weight, network[0].weight)


def test_a_network_in_evaluation_mode_is_trained_as_any_other():
    network = pretrained()
    assert not network.training
    assert all(layer.training for layer in TricksModule(network, Tricks.fine_tuning()).modules())


def test_the_first_layer_learns_at_a_share_of_the_rate_and_the_head_at_all_of_it():
    tricks = Tricks.fine_tuning(
        transfer=variant("transfer", "discriminative", first=0.01),
        optimizer=variant("optimizer", "sgd", lr=0.5),
    )
    module = TricksModule(pretrained(), tricks)
    groups = tricks.transfer.split(tricks.weight_decay.groups(module.backbone), module.backbone, 0.5)
    begun = {
        name: group["lr"]
        for group in groups
        for name, p in module.backbone.named_parameters()
        if any(p is own for own in group["params"])
    }
    assert begun["0.weight"] == begun["1.weight"] == begun["0.bias"] == pytest.approx(0.005)
    assert begun["3.weight"] == begun["4.bias"] == pytest.approx(0.05)
    assert begun["6.weight"] == begun["6.bias"] == pytest.approx(0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(module.backbone.parameters()))


def test_rates_of_all_layers_follow_the_schedule():
    """With plain SGD, a step is the rate times the gradient, and each layer has its own rate."""
    tricks = Tricks.plain().model_dump() | {
        "normalization": {"kind": "own"},
        "transfer": {"kind": "discriminative", "first": 0.01},
    }
    slow, fast = pretrained(), pretrained()
    one = TricksModule(slow, tricks)
    trainer(1, limit_train_batches=1).fit(one, datamodule=small_data())
    two = TricksModule(fast, tricks | {"transfer": {"kind": "all"}})
    trainer(1, limit_train_batches=1).fit(two, datamodule=small_data())
    for layer, share in ((0, 0.01), (3, 0.1), (6, 1.0)):
        moved = one.backbone[layer].weight - slow[layer].weight
        expected = share * (two.backbone[layer].weight - fast[layer].weight)
        torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("averaging", ["none", "ema"])
def test_frozen_layers_stay_as_they_are_with_their_statistics(averaging):
    network = pretrained()
    tricks = Tricks.fine_tuning(
        transfer=variant("transfer", "frozen", share=0.4), averaging=variant("averaging", averaging)
    )
    module = TricksModule(network, tricks)
    trainer(2).fit(module, datamodule=small_data())
    for index in (0, 1):
        assert same_state(module.backbone[index], network[index])
    assert not torch.equal(module.backbone[3].weight, network[3].weight)
    assert not torch.equal(module.backbone[4].running_mean, network[4].running_mean)
    module.train()
    assert [module.backbone[index].training for index in (1, 4)] == [False, True]


@pytest.mark.parametrize("share", [0.01, 1.0])
def test_the_head_is_never_frozen(share):
    tricks = Tricks.fine_tuning(transfer=variant("transfer", "frozen", share=share))
    module = TricksModule(pretrained(), tricks)
    trained = [name for name, p in module.backbone.named_parameters() if p.requires_grad]
    assert {"6.weight", "6.bias"} <= set(trained)
    assert "0.weight" not in trained


@pytest.mark.usefixtures("without_mlflow")
def test_a_study_from_the_fine_tuning_baseline_keeps_the_weights_in_every_trial():
    network = pretrained()
    task = Task(
        "tuned",
        small_data(),
        lambda tricks: copy.deepcopy(network),
        epochs=2,
        baseline=Tricks.fine_tuning(),
    )
    study = create_study("tuned", storage=None, epochs=2)
    optimize(study, task, n_trials=5, workers="inline", progress=False)
    for stage, kind in (
        ("initialization", "keep"),
        ("normalization", "own"),
        ("transfer", "discriminative"),
    ):
        assert {Outcome.read(t).recipe[stage]["kind"] for t in study.trials} == {kind}
    assert study.trials[0].params["optimizer.adam.lr"] == 2e-4
    assert all(t.state.name in ("COMPLETE", "PRUNED") for t in study.trials)


def test_a_study_says_that_weights_are_drawn_anew():
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))  # without trained norms
    task = Task("tuned", small_data(), lambda tricks: copy.deepcopy(network))
    assert "give the task the baseline Tricks.fine_tuning()" in check(task, Space(Tricks)).notes[-1]
    assert check(Task("new", small_data(), lambda tricks: mlp()), Space(Tricks)).notes == []


def test_a_baseline_of_another_type_is_an_error():
    with pytest.raises(ValueError, match=r"must be a recipe of Tricks.*got ModuleTricks"):
        Task("wrong", small_data(), lambda tricks: mlp(), baseline=ModuleTricks.fine_tuning())
