"""Sharpness-aware minimization, and gradients taken at other weights."""

import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import fit, mlp, samples, small_data, variant
from torch import nn

from lightning_tricks import InputError, Tricks, TricksModule


def test_sam_takes_the_gradient_uphill_and_comes_back():
    """For L = Σ aᵢwᵢ²/2, which has a closed form."""
    scale = torch.tensor([1.0, 4.0])
    module = nn.Module()
    module.weight = nn.Parameter(torch.tensor([3.0, 1.0]))

    def evaluate():
        module.weight.grad = None
        loss = (scale * module.weight.square()).sum() / 2
        loss.backward()
        return loss

    before = module.weight.detach().clone()
    loss = variant("sharpness", "sam", rho=0.5).closure(module, evaluate)()
    gradient = scale * before
    there = before + 0.5 * gradient / gradient.norm()
    torch.testing.assert_close(module.weight.grad, scale * there)
    assert torch.equal(module.weight, before)
    assert float(loss.detach()) == pytest.approx(float((scale * before.square()).sum() / 2))


def test_the_statistics_of_batch_norm_are_those_of_the_first_pass():
    module = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    inputs, targets = samples(8, 6)
    passes = []

    def evaluate():
        module.zero_grad()
        loss = nn.functional.cross_entropy(module(inputs), targets)
        loss.backward()
        passes.append(module[1].running_mean.clone())

    variant("sharpness", "sam").closure(module, evaluate)()
    assert len(passes) == 2
    assert torch.equal(module[1].running_mean, passes[0])
    assert module[1].num_batches_tracked == 1


def test_a_trained_module_sees_two_passes_and_one_step_a_batch():
    calls = []

    class Counted(nn.Sequential):
        def forward(self, inputs):
            if self.training:
                calls.append(torch.is_grad_enabled())
            return super().forward(inputs)

    tricks = Tricks.plain().model_copy(update={"sharpness": variant("sharpness", "sam")})
    module = fit(tricks, Counted(*mlp()), small_data(), epochs=1)
    assert sum(calls) == 1 + 2 * 3  # the first pass is the check before any change
    assert module.trainer.global_step == 3


def test_sam_beside_accumulated_gradients_is_an_error():
    tricks = Tricks(sharpness={"kind": "sam"})
    with pytest.raises(InputError, match="leave accumulate_grad_batches of the Trainer at 1"):
        fit(tricks, mlp(), small_data(), accumulate_grad_batches=2)


def test_accumulated_gradients_equal_a_larger_batch():
    def trained(batch_size, accumulated):
        torch.manual_seed(0)
        tricks = Tricks.plain()
        data = small_data(batch_size=batch_size)
        torch.manual_seed(0)
        module = TricksModule(backbone, tricks)
        from conftest import trainer

        trainer(2, accumulate_grad_batches=accumulated).fit(module, datamodule=data)
        return module.state_dict()

    backbone = mlp()
    whole, pieces = trained(8, 1), trained(4, 2)
    for name, value in whole.items():
        torch.testing.assert_close(pieces[name], value, msg=name)


def test_both_passes_see_the_same_draws():
    module = nn.Linear(3, 3)
    seen = []

    def evaluate():
        module.zero_grad()
        seen.append(torch.rand(4))
        module(torch.ones(1, 3)).sum().backward()

    variant("sharpness", "sam").closure(module, evaluate)()
    assert torch.equal(*seen)
    assert not torch.equal(torch.rand(4), seen[0])


class Queue(nn.Module):
    """Draws from NumPy and Python, fills a queue, and replaces a buffer, in each training step."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("queue", torch.zeros(4))
        self.register_buffer("place", torch.tensor(0))
        self.seen = []

    def forward(self, inputs):
        self.seen.append((random.random(), np.random.rand()))  # noqa: NPY002  # as users do
        with torch.no_grad():
            self.queue[self.place] += 1
            self.place = (self.place + 1) % 4
        return self.layer(inputs)


def test_a_queue_moves_once_and_numbers_of_numpy_and_python_are_the_same():
    module = Queue()

    def evaluate():
        module.zero_grad()
        module(torch.ones(1, 3)).sum().backward()

    for _ in range(2):
        variant("sharpness", "sam").closure(module, evaluate)()
    assert module.queue.tolist() == [1, 1, 0, 0]
    assert module.place.item() == 2
    first, again, second, _ = module.seen
    assert first == again != second


def test_a_callback_that_accumulates_gradients_is_refused_as_well():
    tricks = Tricks(sharpness={"kind": "sam"})
    scheduler = pl.callbacks.GradientAccumulationScheduler({1: 3})
    with pytest.raises(InputError, match=r"accumulate_grad_batches of the Trainer at 1 \(got 3\)"):
        fit(tricks, mlp(), callbacks=[scheduler])


def test_an_exception_leaves_the_weights_where_they_were():
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = module[0].weight.detach().clone()
    passes = []

    def evaluate():
        passes.append(1)
        if len(passes) == 2:
            raise KeyboardInterrupt
        module(torch.randn(4, 3)).square().sum().backward()

    with pytest.raises(KeyboardInterrupt):
        variant("sharpness", "sam").closure(module, evaluate)()
    assert torch.equal(module[0].weight, before)
    assert module[1].track_running_stats


def test_a_step_without_a_loss_has_nothing_to_climb():
    module = nn.Linear(6, 3)
    before = module.weight.detach().clone()
    assert variant("sharpness", "sam").closure(module, lambda: None)() is None
    assert torch.equal(module.weight, before)
