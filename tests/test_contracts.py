"""Contracts for every variant of every stage, found from the types."""

import itertools
from collections import OrderedDict

import numpy as np
import optuna
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from allpairspy import AllPairs
from conftest import (
    VARIANTS,
    fit,
    mlp,
    picture_data,
    residual_convnet,
    small_data,
    trainer,
    variant,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_tricks import Space, Tricks, TricksModule, suggest
from lightning_tricks.space.trick import kind_of, stages


def test_with_every_trick_off_weights_equal_plain_pytorch():
    backbone = mlp()
    tricks = Tricks.plain()
    data = small_data()
    torch.manual_seed(3)
    trained = fit(tricks, backbone, data, epochs=3)

    reference = mlp()
    reference.load_state_dict(backbone.state_dict())
    optimizer = torch.optim.SGD(reference.parameters(), lr=tricks.optimizer.lr)
    split = data.splits["train"]
    for epoch in range(3):
        order = torch.randperm(24, generator=torch.Generator().manual_seed(3 + epoch))
        for index in order.split(8):
            optimizer.zero_grad()
            F.cross_entropy(reference(split.inputs[index]), split.targets[index]).backward()
            optimizer.step()
    for ours, theirs in zip(trained.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("stage", stages(Tricks))
def test_each_stage_has_one_neutral_variant(stage):
    neutral = [option for option in stages(Tricks)[stage].values() if option.neutral]
    assert len(neutral) == 1


def test_plain_is_made_of_the_neutral_variants():
    plain = Tricks.plain()
    for stage in stages(Tricks):
        assert getattr(plain, stage).neutral


@pytest.mark.parametrize(("stage", "kind"), VARIANTS)
def test_every_variant_has_a_documented_formula_and_valid_defaults(stage, kind):
    chosen = variant(stage, kind)
    assert kind_of(type(chosen)) == kind == chosen.kind
    assert type(chosen).__doc__


WITHOUT_NORM = "ignore:'zero_gamma' changes no branch"
"""Without a norm, none can begin with γ = 0, and a warning says so."""


ALL_PAIRS = list(AllPairs(OrderedDict((stage, list(kinds)) for stage, kinds in stages(Tricks).items())))
"""Rows of one kind for each stage: any two kinds of two stages are together in one of them."""


def step(kinds):
    """Take one optimizer step from raw bytes; return what is wrong with the weights, or nothing."""
    split = picture_data().splits["validation"]
    module = TricksModule(residual_convnet(), Tricks(**{s: {"kind": kind} for s, kind in kinds.items()}))
    before = [p.detach().clone() for p in module.parameters()]
    loader = torch.utils.data.DataLoader([*zip(*split, strict=True)][:8], batch_size=8)
    trainer(1, max_steps=1, num_sanity_val_steps=0).fit(module, loader, loader)
    after = list(module.parameters())
    if not all(torch.isfinite(p).all() for p in after):
        return "not all weights are finite"
    moved = any((a != b).any() for a, b in zip(after, before, strict=True))
    return "" if moved else "no weight has moved"


def outcome(kinds):
    """Return what is wrong with a step, including an error."""
    try:
        return step(kinds)
    except Exception as error:
        return repr(error)


@pytest.mark.filterwarnings(WITHOUT_NORM)
@pytest.mark.parametrize("row", ALL_PAIRS, ids=range(len(ALL_PAIRS)))
def test_every_pair_of_variants_takes_a_finite_moving_step(row):
    if wrong := outcome(row._asdict()):
        pairs = itertools.combinations(row._asdict().items(), 2)
        alone = {pair: outcome(dict(pair)) for pair in pairs}
        named = {pair: text for pair, text in alone.items() if text}
        pytest.fail(f"{wrong}; pairs that are at fault by themselves: {named or 'none'}; all: {row}")


@pytest.mark.parametrize(("stage", "kind"), VARIANTS)
def test_every_variant_trains_a_convnet(stage, kind):
    tricks = Tricks(**{stage: {"kind": kind}})
    module = fit(tricks, residual_convnet(), picture_data(), epochs=2)
    assert all(torch.isfinite(p).all() for p in module.parameters())


@pytest.mark.parametrize(("stage", "kind"), VARIANTS)
def test_every_variant_survives_json(stage, kind):
    tricks = Tricks(**{stage: {"kind": kind}})
    assert Tricks.model_validate_json(tricks.model_dump_json()) == tricks
    assert Tricks.parse(tricks.model_dump()) == tricks


@pytest.mark.parametrize(("stage", "kind"), VARIANTS)
def test_every_variant_goes_on_from_a_checkpoint_as_if_uninterrupted(stage, kind, tmp_path):
    tricks = Tricks(**{stage: {"kind": kind}})
    backbone, data, path = residual_convnet(), picture_data(), tmp_path / "half.ckpt"

    class Half(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            torch.manual_seed(trainer.current_epoch)  # dropout masks

        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1 and not path.exists():
                trainer.save_checkpoint(path)

    def train(ckpt_path=None):
        torch.manual_seed(0)
        module = TricksModule(backbone, tricks)
        trainer(4, callbacks=[Half()]).fit(module, datamodule=data, ckpt_path=ckpt_path)
        return module.state_dict()

    whole, resumed = train(), train(path)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, msg=lambda m, n=name: f"{n}: {m}")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_drawn_recipes_are_valid_and_their_parameters_are_the_active_fields(seed):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    space = Space(Tricks)
    trial = study.ask()
    recipe = suggest(trial, space)
    assert Tricks.parse(recipe.model_dump()) == recipe
    expected = space.params(recipe)
    assert set(trial.params) == set(expected)
    for name, value in trial.params.items():
        if isinstance(value, float):
            np.testing.assert_allclose(value, expected[name], rtol=1e-9, atol=1e-12)
        else:
            assert value == expected[name]


def test_a_stage_is_drawn_with_all_its_searched_variants_and_no_other():
    space = Space(Tricks)
    for stage, options in stages(Tricks).items():
        searched = [kind for kind, option in options.items() if option.searched]
        assert list(space.domains[stage].extremes()) == searched
    assert "normal" not in space.domains["initialization"].extremes()
