"""Does the parity check find what a group would compute differently, and is it trained alone?"""

import copy
import random
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import mlp, residual_convnet, small_data
from pydantic import Field
from test_fusion import assert_same, doubles, pictures, together
from torch import nn
from torchvision.ops import StochasticDepth

from lightning_tricks import InMemoryData, Split, Task, Tricks, train
from lightning_tricks.fusion.member import Member
from lightning_tricks.fusion.parity import check_parity
from lightning_tricks.fusion.stack import Stack
from lightning_tricks.trial.training import Training
from lightning_tricks.tricks.augmentation import AugmentationTrick, NoErasing
from lightning_tricks.tricks.clipping import ClippingTrick, NoClipping, NormClipping
from lightning_tricks.tricks.optimizers.adam import Adam

__all__ = ["doubles"]
SEEDS = (3, 4, 5)
OWN = Tricks(normalization="own", initialization="keep")
BARE = OWN.model_copy(update={"scaling": Tricks(scaling="none").scaling})
"""A recipe that passes the inputs of the data on unchanged."""


def is_as_alone(task, recipe=OWN):
    """Train a recipe alone and in a group; return why it was not fused."""
    alone = [train(task, recipe, seed) for seed in SEEDS]
    found, refusal = together(task, [recipe] * 3, SEEDS)
    assert {result.state for result in alone} == {"complete"}, alone[0].traceback
    for mine, other in zip(found, alone, strict=True):
        assert_same(mine, other)
    return refusal


class Layer(nn.Module):
    """Maps six numbers to six numbers."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 6)
        self.register_buffer("kept", torch.ones(6))
        self.steps, self.counts = 0, {"passes": 0}


class Follows(Layer):
    def forward(self, inputs):
        if self.training:
            self.kept = 0.9 * self.kept + 0.1 * inputs.detach().mean(0)
        return self.inner(inputs - self.kept)


class FollowsSlowly(Layer):
    def forward(self, inputs):
        if self.training:
            self.kept = 0.999 * self.kept + 0.001 * inputs.detach().mean(0)
        return self.inner(inputs / self.kept)


class FollowsInValidation(Layer):
    def forward(self, inputs):
        if not self.training:
            self.kept = self.kept + inputs.mean(0)
        return self.inner(inputs) + self.kept


class Counts(Layer):
    def forward(self, inputs):
        self.steps += 1
        return self.inner(inputs) / self.steps


class CountsInside(Layer):
    def forward(self, inputs):
        self.counts["passes"] += 1
        return self.inner(inputs) / self.counts["passes"]


class Reverses(Layer):
    """Followed by a head that begins at zero, so that its gradients do too."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 6)
        nn.init.zeros_(self.head.weight)

    def forward(self, inputs):
        inner = self.inner(inputs)
        if inner.requires_grad:
            inner.register_hook(lambda gradient: -gradient)
        return self.head(torch.tanh(inner))


class DrawsWithNumPy(Layer):
    def forward(self, inputs):
        seldom = self.training and np.random.rand() < 1e-9  # noqa: NPY002  # as people do
        return self.inner(inputs.flip(1) if seldom else inputs)


class DrawsWithPython(Layer):
    def forward(self, inputs):
        return self.inner(inputs * random.uniform(0.999, 1.001))


class SwitchesBySelf(Layer):
    def train(self, mode=True):
        self.steps = 1 if mode else 2
        return super().train(mode)

    def forward(self, inputs):
        return self.inner(inputs * self.steps)


class HasTwoNames(Layer):
    def __init__(self):
        super().__init__()
        self.same = nn.Sequential(self.inner, nn.ReLU())

    def forward(self, inputs):
        return self.same(inputs)


MASKS = {}


class KeepsForAll(Layer):
    def forward(self, inputs):
        if inputs.shape[1] not in MASKS:
            MASKS[inputs.shape[1]] = inputs.new_ones(inputs.shape[1])
        return self.inner(inputs * MASKS[inputs.shape[1]])


class Scores(Layer):
    """Has an embedding with a padding token, and a parameter with a short name."""

    def __init__(self):
        super().__init__()
        self.words = Words(4, 1, padding_idx=1)
        self.p = nn.Parameter(torch.ones(6))

    def forward(self, inputs):
        words = self.words(inputs.abs().long().clamp(max=3)).flatten(1)
        return self.inner(words * self.p)


class Words(nn.Embedding):
    pass


class Encodes(nn.Sequential):
    """Draws masks in its own order."""

    def __init__(self):
        layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)
        super().__init__(nn.Unflatten(1, (1, 6)), layer, nn.Flatten())


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (Follows, "the backbone.0.kept of a step would differ from training alone"),
        (FollowsSlowly, "the backbone.0.kept of a step would differ"),
        (FollowsInValidation, "the backbone.0.kept of a step would differ"),
        (Counts, "a layer or the loss changes its steps"),
        (CountsInside, "a layer or the loss changes its counts"),
        (Reverses, "the backbone.0.inner.weight of a step would differ"),
        (HasTwoNames, "a layer has two names"),
        (KeepsForAll, ""),
        (Scores, ""),
        (Encodes, None),  # depends on torch
    ],
)
def test_what_would_be_other_numbers_in_silence_is_trained_alone(layer, why):
    def backbone(tricks):
        return nn.Sequential(layer(), nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))

    MASKS.clear()
    task = Task("rehearsed", small_data(), backbone, epochs=2)
    refusal = is_as_alone(task, OWN.model_copy(update={"dropout": Tricks(dropout="dropout").dropout}))
    assert why is None or (why and refusal.startswith(why)) or refusal == why, refusal


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (DrawsWithNumPy, "a network draws with NumPy's or Python's"),
        (DrawsWithPython, "a network draws with NumPy's or Python's"),
        (SwitchesBySelf, "the output 0 of a step would differ"),
    ],
)
def test_what_a_seed_does_not_fix_is_not_fused(layer, why):
    """Even alone, it is not the same twice."""
    task = Task("drawn", small_data(), lambda t: nn.Sequential(layer(), nn.Linear(6, 3)), epochs=1)
    assert together(task, [OWN] * 3, SEEDS)[1].startswith(why)


class KeepsAverage(nn.Module):
    """A loss relative to its own average."""

    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.ones(()))

    def forward(self, outputs, targets):
        loss = F.cross_entropy(outputs, targets)
        self.average = 0.9 * self.average + 0.1 * loss.detach()
        return loss / self.average


def test_a_loss_that_keeps_something_is_left_as_it_was():
    loss = KeepsAverage()
    task = Task("kept", small_data(), lambda tricks: nn.Linear(6, 3), epochs=1, loss=loss)
    found, refusal = together(task, [OWN] * 3, SEEDS)
    assert "changes its _buffers as it goes" in refusal
    assert [result.state for result in found] == ["complete"] * 3
    assert loss.average.shape == ()


class Halves(nn.Module):
    """Changes its inputs in place."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, inputs):
        inputs[:, :3] *= 0.5
        return self.head(inputs)


def test_data_stay_as_they_are_where_a_network_changes_its_inputs():
    data = small_data()
    before = copy.deepcopy(data.splits)
    task = Task("halves", data, lambda tricks: Halves(), epochs=2)
    together(task, [BARE] * 2, (1, 2))
    train(task, BARE, 1)
    for name, split in data.splits.items():
        assert torch.equal(split.inputs, before[name].inputs), name


class Skips(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.drop, self.head = (
            nn.Linear(6, 6),
            StochasticDepth(0.3, "batch"),
            nn.Linear(6, 3),
        )

    def forward(self, inputs):
        return self.head(inputs + self.drop(self.inner(inputs)))


@pytest.mark.usefixtures("doubles")
def test_a_branch_is_skipped_for_a_batch_where_its_layer_says_so():
    task = Task("skips", small_data(), lambda tricks: Skips(), epochs=3)
    recipe = Tricks.parse({**OWN.model_dump(), "stochastic_depth": {"kind": "linear", "p": 0.3}})
    assert is_as_alone(task, recipe) == ""


class StepsFirst(nn.Module):
    """Sums the steps of a sequence before each, with the steps on the first axis."""

    def __init__(self):
        super().__init__()
        self.embed, self.inner, self.head = nn.Linear(2, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, inputs):
        steps = self.embed(inputs.unflatten(1, (3, 2)).transpose(0, 1))
        return self.head((steps + self.inner(steps.cumsum(0))).mean(0))


@pytest.mark.usefixtures("doubles")
def test_whole_samples_skip_a_branch_where_steps_come_first():
    data = small_data()
    for name, (inputs, targets) in data.splits.items():
        data.splits[name] = Split(inputs.double(), targets)
    task = Task("steps first", data, lambda tricks: StepsFirst(), epochs=3)
    recipe = Tricks.parse({**OWN.model_dump(), "stochastic_depth": {"kind": "linear", "p": 0.3}})
    skipped = (task.module(recipe).backbone.inner(torch.rand(3, 64, 6)) == 0).all(2)
    assert 0 < skipped.all(0).sum() == skipped.any(0).sum() < 64
    assert is_as_alone(task, recipe) == ""


class EachClipping(ClippingTrick):
    """Each tensor's gradient has at most the norm θ."""

    kind: Literal["each"] = "each"
    theta: float = 0.05

    def clip(self, module, gradients, norm):
        for gradient in gradients:
            gradient.mul_((self.theta / gradient.norm()).clamp(max=1.0))
        return norm > self.theta


class NoisyClipping(NormClipping):
    """Adds noise to the clipped gradients."""

    kind: Literal["noisy"] = "noisy"

    def clip(self, module, gradients, norm):
        for gradient in gradients:
            gradient.add_(0.1 * torch.randn_like(gradient))
        return super().clip(module, gradients, norm)


class UnitAdam(Adam):
    """Adam with steps of the length η, so its formula is no longer elementwise."""

    kind: Literal["unit_adam"] = "unit_adam"

    def update(self, gradient, state, lr):
        step = super().update(gradient, state, lr)
        return step / step.norm() * lr


class ShiftedErasing(AugmentationTrick):
    """Shifts each batch by a number drawn with NumPy."""

    kind: Literal["shifted"] = "shifted"

    def change(self, images):
        return images + np.random.normal()  # noqa: NPY002  # what many have


class OwnTricks(Tricks):
    """With the user's own tricks."""

    erasing: NoErasing | ShiftedErasing = Field(NoErasing(), discriminator="kind")
    clipping: NoClipping | EachClipping | NoisyClipping = Field(NoClipping(), discriminator="kind")
    optimizer: Adam | UnitAdam = Field(Adam(), discriminator="kind")


def own(stage, kind):
    """Return a recipe with one of the user's own tricks."""
    return OwnTricks.parse({**OwnTricks().model_dump(), stage: {"kind": kind}})


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize(
    ("stage", "kind"), [("clipping", "each"), ("clipping", "noisy"), ("optimizer", "unit_adam")]
)
def test_tricks_of_ones_own_are_the_same_in_a_group(stage, kind):
    task = Task("own", small_data(), lambda tricks: mlp(), OwnTricks, epochs=2)
    assert is_as_alone(task, own(stage, kind)) == ""


def test_a_trick_that_draws_where_no_member_has_its_own_is_not_fused():
    task = Task("own", pictures(), lambda tricks: residual_convnet(), OwnTricks, epochs=1)
    assert "a trick draws with NumPy's" in together(task, [own("erasing", "shifted")] * 3, SEEDS)[1]


def test_a_trick_that_cannot_change_the_batches_of_one_fails_that_one():
    task = Task("own", small_data(), lambda tricks: mlp(), OwnTricks, epochs=1)
    recipes = [OwnTricks(), own("erasing", "shifted"), OwnTricks()]
    found, refusal = together(task, recipes, SEEDS)
    assert not refusal
    assert [result.state for result in found] == ["complete", "failed", "complete"]
    assert "changes images of shape" in found[1].reason


class Asks(nn.Module):
    """Attention like timm's, which passes its dropout rate to torch."""

    def __init__(self):
        super().__init__()
        self.inner, self.drop = nn.Linear(6, 18), nn.Dropout(0.1)

    def forward(self, inputs):
        queries, keys, values = self.inner(inputs).view(-1, 3, 1, 2, 3).unbind(1)
        p = self.drop.p if self.training else 0.0
        return F.scaled_dot_product_attention(queries, keys, values, dropout_p=p).flatten(1)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize(
    ("dropout", "why"), [("none", ""), ("dropout", "a network reads the rate p of a layer that draws")]
)
def test_a_network_that_asks_a_layer_for_its_rate_is_told_it_where_it_is_zero(dropout, why):
    task = Task("asks", small_data(), lambda t: nn.Sequential(Asks(), nn.Linear(6, 3)), epochs=2)
    assert is_as_alone(task, OWN.model_copy(update={"dropout": Tricks(dropout=dropout).dropout})) == why


class HalvedData(InMemoryData):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0] * 0.5, batch[1]


def test_data_with_hooks_of_their_own_are_lightnings_affair():
    splits = small_data().splits
    data = HalvedData(splits["train"], splits["validation"], batch_size=8)
    task = Task("halved", data, lambda tricks: mlp(), epochs=1)
    assert is_as_alone(task) == "the data have their own on_after_batch_transfer"


def test_a_parity_check_leaves_everything_as_it_was():
    task = Task("rehearsed", small_data(), lambda tricks: mlp(), epochs=1)
    recipe = Tricks(normalization="batch", dropout="dropout")
    trainings = [Training(task, recipe, seed) for seed in (1, 2)]
    members = [Member(training, torch.device("cpu")) for training in trainings]
    for member in members:
        member.random.manual_seed(7)
    before = [copy.deepcopy(member.module.state_dict()) for member in members]
    stack = Stack([m.module for m in members], [m.random for m in members])
    check_parity(stack, members)
    for member, state in zip(members, before, strict=True):
        torch.testing.assert_close(dict(member.module.state_dict()), dict(state), rtol=0, atol=0)
        fresh = torch.Generator().manual_seed(7)
        assert torch.equal(member.random.get_state(), fresh.get_state())
        assert member.module.training
