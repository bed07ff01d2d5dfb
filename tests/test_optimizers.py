"""Each formula against torch's own optimizer; those taught in courses against NumPy."""

import copy

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import VARIANTS, fit, mlp, small_data, variant
from hypothesis import given
from hypothesis import strategies as st
from schedulefree import AdamWScheduleFree

from lightning_tricks import InputError
from lightning_tricks.tricks.optimizers import flat
from lightning_tricks.tricks.optimizers import muon as muon_file
from lightning_tricks.tricks.optimizers.adam import Adam
from lightning_tricks.tricks.optimizers.lion import Lion
from lightning_tricks.tricks.optimizers.momentum import Momentum, TorchMomentum
from lightning_tricks.tricks.optimizers.muon import Muon, MuonOptimizer
from lightning_tricks.tricks.optimizers.normalized import NormalizedSGD
from lightning_tricks.tricks.optimizers.schedule_free import ScheduleFree
from lightning_tricks.tricks.recipe import Tricks
from lightning_tricks.tricks.weight_decay import L1, L2, DecoupledWeightDecay, NoWeightDecay

torch_optim = torch.optim
REFERENCES = [
    ("sgd", {"lr": 0.1}, torch_optim.SGD, {"lr": 0.1}),
    ("torch_momentum", {"lr": 0.1, "gamma": 0.8}, torch_optim.SGD, {"lr": 0.1, "momentum": 0.8}),
    ("momentum", {"lr": 0.1, "gamma": 0.8}, torch_optim.SGD, {"lr": 0.1, "momentum": 0.8}),
    (
        "nesterov",
        {"lr": 0.1, "gamma": 0.8},
        torch_optim.SGD,
        {"lr": 0.1, "momentum": 0.8, "nesterov": True},
    ),
    ("adagrad", {"lr": 0.1}, torch_optim.Adagrad, {"lr": 0.1}),
    ("rmsprop", {"lr": 0.01, "rho": 0.95}, torch_optim.RMSprop, {"lr": 0.01, "alpha": 0.95}),
    ("adam", {"lr": 0.01, "beta1": 0.8}, torch_optim.Adam, {"lr": 0.01, "betas": (0.8, 0.999)}),
]


def run(optimizer, module, steps=12):
    """Take steps on a fixed sequence of random losses."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        inputs = torch.randn(5, 6, generator=generator)
        optimizer.zero_grad()
        module(inputs).square().sum().backward()
        optimizer.step()
    return [p.detach().clone() for p in module.parameters()]


def pair():
    torch.manual_seed(0)
    ours = mlp()
    theirs = mlp()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def close(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("kind", "fields", "reference", "options"), REFERENCES)
def test_each_optimizer_equals_torch(kind, fields, reference, options):
    ours, theirs = pair()
    optimizer = variant("optimizer", kind, **fields).build(NoWeightDecay().groups(ours), ours)
    close(run(optimizer, ours), run(reference(theirs.parameters(), **options), theirs))


@pytest.mark.parametrize(("kind", "fields", "reference", "options"), REFERENCES)
def test_l2_equals_the_weight_decay_of_torch(kind, fields, reference, options):
    ours, theirs = pair()
    groups = L2(strength=0.03, norms_and_biases=True).groups(ours)
    optimizer = variant("optimizer", kind, **fields).build(groups, ours)
    expected = reference(theirs.parameters(), weight_decay=0.03, **options)
    close(run(optimizer, ours), run(expected, theirs))


def test_adam_with_decoupled_decay_equals_adamw():
    ours, theirs = pair()
    groups = DecoupledWeightDecay(strength=0.3, norms_and_biases=True).groups(ours)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.3)
    close(run(Adam(lr=0.01).build(groups, ours), ours), run(reference, theirs))


def test_adam_with_decoupled_decay_of_weights_alone_equals_adamw_with_two_groups():
    ours, theirs = pair()
    weights = [p for p in theirs.parameters() if p.dim() > 1]
    biases = [p for p in theirs.parameters() if p.dim() == 1]
    reference = torch.optim.AdamW(
        [{"params": weights, "weight_decay": 0.3}, {"params": biases, "weight_decay": 0.0}],
        lr=0.01,
    )
    optimizer = Adam(lr=0.01).build(DecoupledWeightDecay(strength=0.3).groups(ours), ours)
    close(run(optimizer, ours), run(reference, theirs))


def test_l1_pulls_each_weight_towards_zero_by_the_same_amount():
    ours, _ = pair()
    before = ours[0].weight.detach().clone()
    optimizer = variant("optimizer", "sgd", lr=0.5).build(L1(strength=0.01).groups(ours), ours)
    for parameter in ours.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # the penalty acts alone
    torch.testing.assert_close(ours[0].weight, before - 0.5 * 0.01 * before.sign())


def drive(trick, gradients, rates):
    """Return the path of a weight from zero under a formula."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = trick.build([{"params": [parameter]}], torch.nn.Module())
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = torch.tensor([float(gradient)])
        optimizer.step()
    return float(parameter.detach())


def test_the_lessons_momentum_keeps_its_speed_when_the_rate_drops_and_torchs_does_not():
    gradients, rates = [1.0] * 10, [0.1] * 5 + [0.01] * 5
    velocity = weight = buffer = other = 0.0
    for g, eta in zip(gradients, rates, strict=True):
        velocity = 0.9 * velocity - eta * g
        weight += velocity
        buffer = 0.9 * buffer + g
        other -= eta * buffer
    lessons = drive(Momentum(gamma=0.9), gradients, rates)
    torchs = drive(TorchMomentum(gamma=0.9), gradients, rates)
    np.testing.assert_allclose([lessons, torchs], [weight, other], rtol=1e-5)
    assert lessons < torchs - 0.5


@pytest.mark.parametrize("scope", ["layer", "global"])
@given(scale=st.floats(1e-6, 1e6))
def test_a_normalized_step_has_the_length_of_the_learning_rate(scope, scale):
    parameters = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2, 2))]
    optimizer = NormalizedSGD(lr=0.25, scope=scope).build([{"params": parameters}], torch.nn.Module())
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, scale)
    optimizer.step()
    lengths = [float(p.detach().norm()) for p in parameters]
    if scope == "layer":
        np.testing.assert_allclose(lengths, [0.25, 0.25], rtol=1e-4)
    else:
        np.testing.assert_allclose(np.hypot(*lengths), 0.25, rtol=1e-4)


def test_a_zero_gradient_does_not_move_a_normalized_step():
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = NormalizedSGD().build([{"params": [parameter]}], torch.nn.Module())
    parameter.grad = torch.zeros(3)
    optimizer.step()
    assert torch.equal(parameter, torch.ones(3))


@pytest.mark.parametrize("kind", [*(kind for kind, *_ in REFERENCES), "lion"])
def test_numbers_may_be_vectors_one_for_each_model(kind):
    """The interface for many models at once: stacked gradients, and a learning rate for each."""
    rates = [0.01, 0.02, 0.05]
    trick = variant("optimizer", kind)
    gradients = torch.randn(6, 3, 4)  # steps, models, weights
    stacked: dict = {}
    alone: list[dict] = [{} for _ in rates]
    for gradient in gradients:
        together = trick.update(gradient, stacked, torch.tensor(rates)[:, None])
        for row, (rate, state) in enumerate(zip(rates, alone, strict=True)):
            torch.testing.assert_close(together[row], trick.update(gradient[row], state, rate))


def test_lion_equals_the_papers_program_in_numpy():
    gradients = np.random.default_rng(0).normal(size=(9, 4))
    weight, mean = np.ones(4), np.zeros(4)
    for g in gradients:
        step = np.sign(0.9 * mean + 0.1 * g)
        weight = weight - 0.01 * (step + 0.2 * weight)
        mean = 0.99 * mean + 0.01 * g
    parameter = torch.nn.Parameter(torch.ones(4))
    optimizer = Lion(lr=0.01).build([{"params": [parameter], "decoupled": 0.2}], torch.nn.Module())
    for g in gradients:
        parameter.grad = torch.tensor(g, dtype=torch.float32)
        optimizer.step()
    np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=1e-5)


def test_muon_equals_torchs_on_hidden_matrices_and_adam_elsewhere(monkeypatch):
    monkeypatch.setattr(muon_file, "_precision", lambda device: torch.bfloat16)  # as torch does
    ours, theirs = pair()
    muon = torch.optim.Muon(
        [theirs[0].weight, theirs[2].weight],
        lr=0.01,
        weight_decay=0.3,
        momentum=0.8,
        adjust_lr_fn="match_rms_adamw",
    )
    rest = [p for p in theirs.parameters() if p is not theirs[0].weight and p is not theirs[2].weight]
    adam = torch.optim.AdamW(rest, lr=0.01, weight_decay=0.3)

    class Both:
        def zero_grad(self):
            theirs.zero_grad()

        def step(self):
            muon.step()
            adam.step()

    groups = DecoupledWeightDecay(strength=0.3, norms_and_biases=True).groups(ours)
    optimizer = Muon(lr=0.01, momentum=0.8).build(groups, ours)
    close(run(optimizer, ours), run(Both(), theirs))


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (1, 4), (6, 6)])
def test_orthogonalized_equals_the_iterations_in_double_precision(shape):
    """The iterations change singular values only: s ← 3.4445·s − 4.775·s³ + 2.0315·s⁵."""
    matrix = np.random.default_rng(0).normal(size=shape)
    left, lengths, right = np.linalg.svd(matrix, full_matrices=False)
    lengths /= np.linalg.norm(lengths)
    for _ in range(5):
        lengths = 3.4445 * lengths - 4.775 * lengths**3 + 2.0315 * lengths**5
    found = muon_file.orthogonalized(torch.tensor(matrix, dtype=torch.float32))
    np.testing.assert_allclose(found, left * lengths @ right, atol=2e-5)
    assert muon_file.orthogonalized(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2


def test_muon_reads_a_convolution_as_a_matrix_and_goes_on_from_its_state():
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4, 2))

    def steps(optimizer, count):
        for seed in range(count):
            generator = torch.Generator().manual_seed(seed)
            module[0].weight.grad = torch.randn(4, 2, 3, 3, generator=generator)
            before = module[0].weight.detach().clone()
            optimizer.step()
        return (module[0].weight.detach() - before).flatten(1)

    optimizer = Muon(lr=1.0).build(NoWeightDecay().groups(module), module)
    step = steps(optimizer, 1)
    lengths = torch.linalg.svdvals(step) / (0.2 * 18**0.5)
    assert 0.5 < lengths.min() < lengths.max() < 1.3  # five Newton-Schulz steps are rough
    again = Muon(lr=1.0).build(NoWeightDecay().groups(module), module)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    torch.testing.assert_close(steps(again, 1), steps(optimizer, 1))


def test_muon_turns_directions_under_weight_norm_and_leaves_lengths_to_adam():
    module = mlp()
    variant("normalization", "weight").wrap(module)
    optimizer = Muon().build(NoWeightDecay().groups(module), module)
    (matrices,) = [group["params"] for group in optimizer.param_groups if group["matrices"]]
    held = [module[index].parametrizations.weight.original1 for index in (0, 2)]
    assert {id(p) for p in matrices} == {id(p) for p in held}


@pytest.mark.parametrize(("kind", "fields", "reference", "options"), REFERENCES)
def test_a_large_network_takes_the_same_steps(kind, fields, reference, options, monkeypatch):
    monkeypatch.setattr(flat, "FLAT_NUMBERS", 10)
    test_each_optimizer_equals_torch(kind, fields, reference, options)


ABSENT = [(), (1,), (1, 3), (), (0,), (0, 1, 2, 3, 4, 5), (2,), (1,), (), (4, 5), ()]
"""Parameters without a gradient, step by step."""


def run_with_gaps(optimizer, module, absent=ABSENT, seed=0):
    """Take steps in which some parameters have no gradient."""
    generator = torch.Generator().manual_seed(seed)
    getattr(optimizer, "train", lambda: None)()  # for schedule-free
    for gaps in absent:
        for place, parameter in enumerate(module.parameters()):
            gradient = torch.randn(parameter.shape, generator=generator)
            parameter.grad = None if place in gaps else gradient
        optimizer.step()
    return [p.detach().clone() for p in module.parameters()]


@pytest.mark.parametrize("numbers", [2**20, 10])
@pytest.mark.parametrize(("kind", "fields", "reference", "options"), REFERENCES)
def test_parameters_without_a_gradient_are_skipped_as_torch_does(
    kind, fields, reference, options, numbers, monkeypatch
):
    monkeypatch.setattr(flat, "FLAT_NUMBERS", numbers)
    ours, theirs = pair()
    groups = L2(strength=0.03, norms_and_biases=True).groups(ours)
    optimizer = variant("optimizer", kind, **fields).build(groups, ours)
    expected = reference(theirs.parameters(), weight_decay=0.03, **options)
    close(run_with_gaps(optimizer, ours), run_with_gaps(expected, theirs))


def test_parameters_without_a_gradient_do_not_decay():
    ours, theirs = pair()
    groups = DecoupledWeightDecay(strength=0.3, norms_and_biases=True).groups(ours)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.3)
    close(run_with_gaps(Adam(lr=0.01).build(groups, ours), ours), run_with_gaps(reference, theirs))


KINDS = [kind for stage, kind in VARIANTS if stage == "optimizer"]


@pytest.mark.parametrize("decay", [L1, L2, DecoupledWeightDecay])
@pytest.mark.parametrize("kind", KINDS)
def test_a_parameter_without_a_gradient_stays_where_it_is(kind, decay):
    module, _ = pair()
    groups = decay(strength=0.1, norms_and_biases=True).groups(module)
    optimizer = variant("optimizer", kind).build(groups, module)
    run_with_gaps(optimizer, module, [()] * 3)  # momentum
    before = [p.detach().clone() for p in module.parameters()]
    run_with_gaps(optimizer, module, [(0, 1, 4)] * 2)
    same = [torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)]
    assert same == [True, True, False, False, True, False]
    run_with_gaps(optimizer, module, [range(6)])
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize("decay", [L1, L2, DecoupledWeightDecay])
@pytest.mark.parametrize("kind", KINDS)
def test_a_large_network_decays_alike(kind, decay, monkeypatch):
    ours, theirs = pair()
    trick = variant("optimizer", kind)
    small = trick.build(decay(strength=0.1).groups(ours), ours)
    monkeypatch.setattr(flat, "FLAT_NUMBERS", 10)
    large = trick.build(decay(strength=0.1).groups(theirs), theirs)
    close(run_with_gaps(small, ours), run_with_gaps(large, theirs))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "schedule_free"])
def test_a_flat_group_with_gaps_equals_one_optimizer_for_each_parameter(kind):
    ours, theirs = pair()
    trick = variant("optimizer", kind)
    optimizer = trick.build(NoWeightDecay().groups(ours), ours)
    matrices = {id(p) for g in optimizer.param_groups if g.get("matrices") for p in g["params"]}
    parts = [
        MuonOptimizer([{"params": [theirs_p]}], trick, {id(theirs_p)})
        if id(ours_p) in matrices
        else (Adam(lr=trick.lr) if kind == "muon" else trick).build([{"params": [theirs_p]}], theirs)
        for ours_p, theirs_p in zip(ours.parameters(), theirs.parameters(), strict=True)
    ]

    class Each:
        def step(self):
            for part in parts:
                part.step()

    close(run_with_gaps(optimizer, ours), run_with_gaps(Each(), theirs))


@pytest.mark.parametrize("numbers", [2**20, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_with_gaps_goes_on_from_what_was_saved(kind, numbers, tmp_path, monkeypatch):
    monkeypatch.setattr(flat, "FLAT_NUMBERS", numbers)
    ours, theirs = pair()
    trick = variant("optimizer", kind)
    optimizer = trick.build(NoWeightDecay().groups(ours), ours)
    run_with_gaps(optimizer, ours, ABSENT[:5])
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    theirs.load_state_dict(ours.state_dict())
    again = trick.build(NoWeightDecay().groups(theirs), theirs)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    close(
        run_with_gaps(optimizer, ours, ABSENT[5:], seed=1),
        run_with_gaps(again, theirs, ABSENT[5:], seed=1),
    )


def test_parameters_with_one_history_share_one_state():
    module, _ = pair()
    optimizer = Adam().build(NoWeightDecay().groups(module), module)
    run_with_gaps(optimizer, module, [()] * 3)
    assert len(optimizer.state) == 1
    run_with_gaps(optimizer, module, [(1, 2)] * 3)
    assert len(optimizer.state) == 2
    sizes = sorted(state["mean"].numel() for state in optimizer.state.values())
    assert sizes == [8 + 8 * 8, sum(p.numel() for p in module.parameters()) - 8 - 8 * 8]
    assert sorted(state["step"] for state in optimizer.state.values()) == [3, 6]


def test_muon_needs_a_hidden_matrix():
    module = torch.nn.Sequential(torch.nn.Linear(3, 2))
    with pytest.raises(InputError, match="'muon' found nothing to act on"):
        Muon().build(NoWeightDecay().groups(module), module)


def test_schedule_free_equals_the_package_and_is_scored_at_the_average():
    ours, theirs = pair()
    groups = DecoupledWeightDecay(strength=0.1, norms_and_biases=True).groups(ours)
    optimizer = ScheduleFree(lr=0.01, warmup_steps=3).build(groups, ours)
    reference = AdamWScheduleFree(theirs.parameters(), lr=0.01, weight_decay=0.1, warmup_steps=3)
    optimizer.train()
    reference.train()
    close(run(optimizer, ours), run(reference, theirs))
    optimizer.eval()
    reference.eval()
    close(ours.parameters(), theirs.parameters())


def test_what_schedule_free_leaves_is_what_it_validated():
    """The final weights are those of the last validation, with their batch-norm statistics."""
    seen = []

    class Watch(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            seen.append({k: v.clone() for k, v in pl_module.state_dict().items()})

    tricks = Tricks(optimizer={"kind": "schedule_free"}, schedule={"kind": "constant"})
    module = fit(tricks, mlp(), small_data(), epochs=3, callbacks=[Watch()])
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, seen[-1][name])


def test_defaults_of_the_search_lie_inside_of_it():
    from lightning_tricks import Space

    space = Space(Tricks)
    assert space.nearest(Tricks()) == Tricks()
    assert space.nearest(Tricks.plain()) == Tricks.plain()
