import pytest
import torch
from conftest import VARIANTS, convnet, mlp, variant
from torch import nn

from lightning_tricks import Tricks, TricksModule
from lightning_tricks.tricks.weight_decay import L2, DecoupledWeightDecay

DECAYS = [kind for stage, kind in VARIANTS if stage == "weight_decay"]
NORMS = [kind for stage, kind in VARIANTS if stage == "normalization"]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("backbone", [mlp, convnet])
def test_every_parameter_is_in_exactly_one_group(norm, decay, backbone):
    tricks = Tricks(normalization={"kind": norm}, weight_decay={"kind": decay})
    module = TricksModule(backbone(), tricks)
    groups = tricks.weight_decay.groups(module.backbone)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in module.backbone.parameters())


def decayed_names(module, trick):
    names = {id(p): name for name, p in module.named_parameters()}
    return {names[id(p)] for p in trick.groups(module)[0]["params"]}


def test_norms_and_biases_are_spared_by_default():
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    assert decayed_names(module, L2()) == {"0.weight", "3.weight"}
    assert len(L2(norms_and_biases=True).groups(module)[0]["params"]) == 6


def test_the_lengths_of_weight_norm_are_spared_though_they_have_two_dimensions():
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    variant("normalization", "weight").wrap(module)
    names = decayed_names(module, DecoupledWeightDecay())
    assert names == {"0.parametrizations.weight.original1", "2.parametrizations.weight.original1"}


def test_frozen_parameters_are_in_no_group():
    module = mlp()
    module[0].weight.requires_grad_(False)
    grouped = [p for group in L2().groups(module) for p in group["params"]]
    assert all(p is not module[0].weight for p in grouped)
    assert len(grouped) == len(list(module.parameters())) - 1


def test_decay_shrinks_weights_only():
    module = nn.Linear(3, 3)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    groups = DecoupledWeightDecay(strength=0.5).groups(module)
    variant("optimizer", "sgd", lr=0.1).build(groups, torch.nn.Module()).step()
    torch.testing.assert_close(module.weight, before["weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(module.bias, before["bias"])
