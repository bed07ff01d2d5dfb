"""Recipes as written in Python and JSON, and the messages about wrong ones."""

import json
from typing import Annotated, Literal

import pytest
from conftest import VARIANTS
from pydantic import Field

from lightning_tricks import MLP, ConvNet, Float, InputError, Space, Trick, Tricks
from lightning_tricks.space.trick import stages
from lightning_tricks.tricks.clipping import NoClipping, NormClipping
from lightning_tricks.tricks.normalization import GroupNorm
from lightning_tricks.tricks.optimizers.adam import Adam
from lightning_tricks.tricks.optimizers.lion import Lion
from lightning_tricks.tricks.optimizers.sgd import SGD


class Deep(Tricks):
    network: MLP | ConvNet = Field(MLP(), discriminator="kind")


class Only(Trick):
    network: MLP = MLP()


@pytest.mark.parametrize(("stage", "kind"), VARIANTS)
def test_the_name_of_a_kind_alone_means_its_defaults(stage, kind):
    recipe = Tricks(**{stage: stages(Tricks)[stage][kind]()})
    given = {stage: kind}
    assert Tricks(**given) == recipe
    assert Tricks.parse(given) == recipe
    assert Tricks.model_validate_json(json.dumps(given)) == recipe
    assert getattr(Space(Tricks).pin(given).nearest(Tricks()), stage).kind == kind
    assert Space(Tricks).narrow(given).domains[stage].extremes() == (kind,)


def test_so_it_does_where_there_is_but_one_kind():
    assert Only(network="mlp") == Only()


WRONG = {
    "kind": (
        {"optimizer": "adm"},
        r"optimizer: must be one of \['sgd', .* 'adm'\); did you mean 'adam'",
    ),
    "kind in a mapping": ({"optimizer": {"kind": "adm"}}, r"\(got 'adm'\); did you mean 'adam'"),
    "no kind": ({"optimizer": {"lr": 1}}, r"optimizer: must be a kind, one of .* \(got {'lr': 1}\)"),
    "number": ({"optimizer": 3}, r"optimizer: must be a kind, one of .* \(got 3\)"),
    "none": ({"optimizer": None}, r"optimizer: must be a kind, one of .* \(got None\)"),
    "class": ({"optimizer": Adam}, r"optimizer: must be a kind, .*; write Adam\(\)"),
    "other stage": ({"optimizer": NormClipping()}, r"must be a kind, .* \(got NormClipping\(\)\)"),
    "field": ({"optimiser": "adam"}, r"optimiser: no such field in Deep; did you mean 'optimizer'"),
    "inner field": (
        {"optimizer": {"kind": "adam", "lrr": 1}},
        r"optimizer.adam.lrr: no such field in Adam; did you mean 'lr'\? \(got 1\)",
    ),
    "value": ({"optimizer": {"kind": "adam", "lr": -1}}, r"optimizer.adam.lr: .* than 0 \(got -1\)"),
    "truth": ({"optimizer": {"kind": "adam", "lr": True}}, r"optimizer.adam.lr: .*number.*True"),
    "whole truth": ({"normalization": {"kind": "group", "groups": True}}, r"groups: .*integer.*True"),
    "huge": ({"normalization": {"kind": "group", "groups": 10**5000}}, "thousands of digits"),
    "long": ({"optimizer": "x" * 9999}, "xx…"),
    "deep": (
        {"network": {"kind": "mlp", "depth": 2**31}},
        r"network.mlp.depth: .* 1000 \(got 2147483648",
    ),
    "wide": ({"network": {"kind": "mlp", "width": 2**31}}, r"network.mlp.width: .* \(got 2147483648"),
    "deep convnet": ({"network": {"kind": "convnet", "depth": 2**31}}, r"convnet.depth: .* to 16 "),
    "wide convnet": ({"network": {"kind": "convnet", "width": 2**31}}, r"convnet.width: .* to 1024 "),
    "adamw": ({"optimizer": "adamw"}, "adamw is adam with weight_decay decoupled here"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_recipe_is_one_clear_line(case):
    given, message = WRONG[case]
    for make in (lambda: Deep(**given), lambda: Deep.parse(given), lambda: Deep.model_validate(given)):
        with pytest.raises(InputError, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500
        assert isinstance(caught.value, ValueError)


def test_wrong_json_is_one_clear_line():
    for text, message in (("{", "Tricks: Invalid JSON"), ('{"optimizer": {"kind": "adm"}}', "'adam'")):
        with pytest.raises(InputError, match=message) as caught:
            Tricks.model_validate_json(text)
        assert "\n" not in str(caught.value)


def test_a_wrong_field_of_a_trick_is_one_clear_line():
    with pytest.raises(InputError, match=r"^lr: .* greater than 0 \(got -1\)$"):
        Adam(lr=-1)


def test_a_name_of_other_libraries_is_explained_in_a_space_too():
    for change in (
        lambda s: s.pin({"optimizer": "adamw"}),
        lambda s: s.narrow({"optimizer": ["adamw"]}),
    ):
        with pytest.raises(InputError, match="adamw is adam with weight_decay decoupled here"):
            change(Space(Tricks))


def test_a_field_with_a_truth_value_takes_one():
    assert MLP(residual=True).residual is True


def test_a_union_without_a_discriminator_is_explained_as_well():
    class Loose(Trick):
        network: MLP | ConvNet = MLP()

    with pytest.raises(InputError, match=r"depth: .* \(got 0\)") as caught:
        Loose(network={"kind": "mlp", "depth": 0})
    assert "\n" not in str(caught.value)


def test_a_recipe_is_written_as_it_would_be_typed():
    assert repr(Tricks()) == str(Tricks()) == "Tricks()"
    recipe = Tricks(optimizer=Adam(lr=0.5), normalization=GroupNorm(), clipping=NoClipping())
    assert eval(repr(recipe)) == recipe
    assert str(recipe) == repr(recipe)
    assert "optimizer=Adam(lr=0.5)" in repr(recipe)
    assert repr(Tricks(optimizer=SGD())) == "Tricks(optimizer=SGD())"


def test_a_subclass_is_written_against_its_own_defaults():
    class Mine(Tricks):
        optimizer: Lion | SGD = Field(Lion(), discriminator="kind")
        rate: Annotated[float, Float(0, 1)] = 0.5
        name: Literal["a", "b"] = "a"

    assert repr(Mine()) == "Mine()"
    assert repr(Mine(rate=0.25, optimizer="sgd")) == "Mine(optimizer=SGD(), rate=0.25)"
