import json
from typing import Annotated, Literal

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from lightning_tricks import (
    Choice,
    Float,
    ImageTricks,
    InputError,
    Int,
    ModuleTricks,
    OneMinus,
    Space,
    Trick,
    Tricks,
    suggest,
)
from lightning_tricks.tricks.clipping import NormClipping
from lightning_tricks.tricks.targets import Mixing, NoMixing


class Off(Trick):
    neutral = True
    kind: Literal["off"] = "off"


class On(Trick):
    kind: Literal["on"] = "on"
    rate: Annotated[float, Float(0.1, 10, log=True)] = Field(1.0, gt=0)
    count: Annotated[int, Int(1, 8)] = Field(2, ge=1)
    flag: Annotated[bool, Choice(False, True)] = False
    beta: Annotated[float, OneMinus(0.01, 0.5)] = Field(0.9, lt=1)
    fixed: float = 7.0


class Hidden(Trick):
    searched = False
    kind: Literal["hidden"] = "hidden"


class Recipe(Trick):
    stage: Off | On | Hidden = Field(On(), discriminator="kind")
    width: Annotated[int, Int(4, 64, log=True)] = 16


SPACE = Space(Recipe)


def draw(space, seed=0, **enqueued):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    if enqueued:
        study.enqueue_trial(enqueued)
    trial = study.ask()
    return suggest(trial, space), trial.params


def test_parameter_names_are_paths_and_only_those_of_the_chosen_variant():
    recipe, params = draw(Recipe, stage="on", width=8)
    assert set(params) == {
        "stage",
        "stage.on.rate",
        "stage.on.count",
        "stage.on.flag",
        "stage.on.one_minus_beta",
        "width",
    }
    assert recipe.stage.beta == 1 - params["stage.on.one_minus_beta"]
    _, params = draw(Recipe, stage="off")
    assert set(params) == {"stage", "width"}


def test_two_optimizers_have_two_learning_rates():
    space = Space(Tricks)
    assert {"optimizer.adam.lr", "optimizer.sgd.lr"} <= set(space.domains)


def test_an_error_names_the_path_and_the_value():
    with pytest.raises(InputError, match=r"stage.on.rate: .* greater than 0 \(got -1\)"):
        Recipe.parse({"stage": {"kind": "on", "rate": -1}})


def test_variants_not_searched_are_there_when_asked_for():
    assert "hidden" not in SPACE.domains["stage"].extremes()
    narrowed = SPACE.narrow({"stage": ["off", "hidden"]})
    assert {draw(narrowed, seed)[0].stage.kind for seed in range(20)} == {"off", "hidden"}
    assert draw(SPACE.pin({"stage": "hidden"}))[0].stage == Hidden()


def test_pin_a_kind_a_field_a_mapping_or_a_whole_trick():
    recipe, params = draw(SPACE.pin({"stage": "on", "stage.on.rate": 3}))
    assert recipe.stage.rate == 3.0
    assert "stage.on.count" in params
    assert not {"stage", "stage.on.rate"} & set(params)
    assert draw(SPACE.pin({"stage": {"kind": "on", "count": 5}}))[0].stage.count == 5
    recipe, params = draw(SPACE.pin({"stage": On(rate=2, count=3), "width": 4}))
    assert recipe == Recipe(stage=On(rate=2, count=3), width=4)
    assert params == {}


def test_only_some_stages_are_searched_and_the_others_are_those_of_a_recipe():
    assert set(SPACE.only("width").searched()) == {"width"}
    recipe, params = draw(SPACE.only("width", recipe=Recipe(stage="off")))
    assert (recipe.stage.kind, set(params)) == ("off", {"width"})
    recipe, params = draw(SPACE.only("stage"))
    assert (recipe.width, "width" in params) == (16, False)
    space = Space(Tricks).only("smoothing").narrow({"smoothing": ["none", "label_smoothing"]})
    assert {path.partition(".")[0] for path in space.searched()} == {"smoothing"}


@pytest.mark.parametrize("name", ["nothing", "stage.on.rate"])
def test_only_takes_the_names_of_stages(name):
    with pytest.raises(InputError, match=name.partition(".")[0]):
        SPACE.only(name)


def test_what_is_narrowed_is_not_pinned_in_silence():
    narrowed = Space(Tricks).narrow({"averaging": ["none", "ema"]})
    with pytest.raises(InputError, match=r"averaging: is narrowed to .* already; pin it or narrow it"):
        narrowed.pin({"averaging": "none"})
    assert narrowed.narrow({"averaging": ["ema"]}).domains["averaging"].extremes() == ("ema",)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_narrowed_values_stay_inside(seed):
    space = SPACE.narrow({"stage.on.rate": Float(2, 3), "width": {"low": 8, "high": 9}})
    recipe, _ = draw(space.pin({"stage": "on"}), seed)
    assert 2 <= recipe.stage.rate <= 3
    assert recipe.width in (8, 9)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_a_recipe_is_found_again_by_its_parameters(seed):
    recipe, params = draw(SPACE, seed)
    again, _ = draw(SPACE, seed + 1, **params)
    assert again == recipe
    assert SPACE.nearest(recipe) == recipe


def test_nearest_moves_what_lies_outside():
    space = SPACE.narrow({"stage": ["off", "on"], "width": [4, 8]}).narrow(
        {"stage.on.rate": {"low": 2, "high": 5}}
    )
    assert space.nearest(Recipe()) == Recipe(stage=On(rate=2.0), width=4)
    assert space.nearest(Recipe(stage=Hidden())).stage == Off()


WRONG = [
    ({"pin": {"stge": "on"}}, "stge: no such field in Recipe; did you mean 'stage'"),
    ({"pin": {"stage": "onn"}}, "stage: must be one of"),
    ({"pin": {"stage": 3}}, "stage: must be a kind"),
    ({"pin": {"stage": {"rate": 3}}}, "stage: must be a kind"),
    ({"pin": {"stage.on.rate": -1}}, "greater than 0"),
    ({"pin": {"stage.on.rate": float("nan")}}, "finite"),
    ({"pin": {"width": "wide"}}, "width: .*integer"),
    ({"narrow": {"stage": []}}, "at least one option"),
    ({"narrow": {"stage": ["on", "on"]}}, "differ"),
    ({"narrow": {"stage": {"low": 1, "high": 2}}}, "takes a list of options"),
    ({"narrow": {"width": {"low": 9, "high": 4}}}, "low <= high"),
    ({"narrow": {"width": {"low": 1.5, "high": 4}}}, "whole numbers"),
    ({"narrow": {"width": {"low": 1}}}, "needs low and high"),
    ({"narrow": {"width": {"low": 1, "high": 2, "step": 1}}}, "low, high and log only"),
    ({"narrow": {"width": {"low": "a", "high": 2}}}, "width: "),
    ({"narrow": {"width": 5}}, "list of options or"),
    ({"narrow": {"stage.on.rate": {"low": 0, "high": 2, "log": True}}}, "low > 0"),
    ({"narrow": {"stage.on.rate": {"low": 0, "high": 2}}}, "greater than 0"),
    ({"pin": {"stage": "off"}, "narrow": {"stage.on.rate": [1, 2]}}, "is never used"),
    ({"pin": {"stage": "off", "stage.on.rate": 1}}, "is never used"),
    ({"pin": {"width": 8}, "narrow": {"width": [4, 8]}}, "is pinned to 8 already"),
    ({"pin": {"stage": "on", "stage.on.rate": [1]}}, "valid number"),
    ({"narrow": {"stage.on.flag": {"low": 0, "high": 1}}}, "takes a list of options"),
    ({"narrow": {"stage.on.flag": [2, 3]}}, "valid boolean"),
    ({"narrow": {"stage": [["on"]]}}, "options must be strings"),
    ({"narrow": {"width": {"low": 1, "high": float("inf")}}}, "width: "),
    ({"narrow": {"width": {"low": 4, "high": 8, "log": "no"}}}, "log must be true or false"),
    ({"pin": {"stage": {"kind": ["on"]}}}, "stage: must be a kind"),
    ({"pin": False}, "must map paths to values"),
    (False, "sections"),
    ({"search": {}}, "sections `pin` and `narrow` only"),
    ({"pin": ["stage"]}, "must map paths to values"),
    ([1], "sections"),
    ({"pin": {1: 2}}, "must map paths"),
]


@pytest.mark.parametrize(("content", "message"), WRONG, ids=[str(content) for content, _ in WRONG])
def test_a_wrong_space_is_one_clear_line(content, message, tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=message) as caught:
        Space.from_yaml(Recipe, path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"pin: [", b"\xff\xfe\x00", b"a: b: c"])
def test_a_malformed_file_is_one_clear_line(content, tmp_path):
    path = tmp_path / "space.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        Space.from_yaml(Recipe, path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        Space.from_yaml(Recipe, tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        Space.from_yaml(Recipe, tmp_path)


def test_a_space_from_a_file(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(
        "pin: {clipping: {kind: norm, theta: 2.0}}\n"
        "narrow:\n"
        "  optimizer: [adam, sgd]\n"
        "  optimizer.adam.lr: {low: 1e-4, high: 1e-2, log: true}\n"
    )
    space = Space.from_yaml(Tricks, path)
    assert space.domains["optimizer.adam.lr"] == Float(1e-4, 1e-2, log=True)
    assert space.nearest(Tricks()).clipping == NormClipping(theta=2.0)


def test_options_are_read_as_the_field_reads_them():
    space = SPACE.narrow({"stage.on.rate": ["1e-1", "1e0"], "stage.on.flag": ["yes", "no"]})
    assert space.domains["stage.on.rate"].options == (0.1, 1.0)
    assert space.domains["stage.on.flag"].options == (True, False)
    recipe, _ = draw(space.pin({"stage": "on"}))
    assert recipe.stage.rate in (0.1, 1.0)


def distances(space):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = space.pin({"stage": "on"})
    drawn = [suggest(study.ask(), space).stage.beta for _ in range(400)]
    assert all(0.5 <= beta <= 0.999 for beta in drawn)
    return [1 - beta for beta in drawn]


def test_a_narrowed_momentum_is_still_even_in_the_log_of_its_distance_to_one():
    """Bounds are values of the field; a third of the draws is in each third of the log range."""
    narrowed = {"stage.on.beta": {"low": 0.5, "high": 0.999}}
    thirds = [0.001 * 500 ** (part / 3) for part in (1, 2)]
    for log in ({}, {"log": True}):
        found = distances(SPACE.narrow({"stage.on.beta": {**narrowed["stage.on.beta"], **log}}))
        assert 0.25 < sum(d < thirds[0] for d in found) / 400 < 0.42
        assert 0.25 < sum(d > thirds[1] for d in found) / 400 < 0.42
    even = distances(SPACE.narrow({"stage.on.beta": {**narrowed["stage.on.beta"], "log": False}}))
    assert sum(d < thirds[1] for d in even) / 400 < 0.2


def test_a_narrowed_momentum_ends_below_one():
    with pytest.raises(InputError, match=r"stage.on.beta: high < 1 must hold, .*\(got high=1.0\)"):
        SPACE.narrow({"stage.on.beta": {"low": 0.5, "high": 1}})
    with pytest.raises(InputError, match=r"stage.on.beta: low <= high .*low=0.9, high=0.8"):
        SPACE.narrow({"stage.on.beta": {"low": 0.9, "high": 0.8}})


class Nested(Trick):
    inner: On = On(rate=2.0)


def test_a_recipe_that_is_no_choice_is_pinned_by_its_fields_or_whole():
    space = Space(Nested)
    assert space.pin({"inner": {"rate": 3}}).nearest(Nested()).inner.rate == 3.0
    assert draw(space.pin({"inner": On(rate=4)}))[0] == Nested(inner=On(rate=4))
    with pytest.raises(InputError, match="is a recipe, so pin its fields"):
        space.pin({"inner": "on"})


def test_a_recipe_type_that_is_wrong_in_itself_is_one_clear_line():
    class NoDefault(Trick):
        width: int

    class WrongDefault(Trick):
        width: Annotated[int, Int(1, 4)] = "wide"

    class WrongDomain(Trick):
        width: Annotated[int, Int(1, 8)] = Field(8, ge=4)

    for model, message in (
        (NoDefault, "width: .*required"),
        (WrongDefault, "width: .*integer"),
        (WrongDomain, r"width: .*equal to 4 \(got 1\)"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            Space(model).check()
        assert "\n" not in str(caught.value)


def test_the_description_is_plain_data():
    assert json.loads(json.dumps(Space(Tricks).describe())) == Space(Tricks).describe()


def test_a_subclass_widens_the_space():
    class Mine(Tricks):
        width: Annotated[int, Int(8, 16)] = 8

    recipe, params = draw(Mine)
    assert isinstance(recipe, Mine)
    assert params["width"] == recipe.width


@pytest.mark.parametrize(
    "make",
    [
        lambda: Float(2, 1),
        lambda: Float(0, 1, log=True),
        lambda: Float(0, float("inf")),
        lambda: Float(float("nan"), 1),
        lambda: Int(3, 2),
        Choice,
        lambda: Choice("a", "a"),
        lambda: Choice(float("nan")),
        lambda: Choice([1]),
        lambda: OneMinus(0, 0.5),
    ],
    ids=range(10),
)
def test_a_wrong_domain_is_refused_when_it_is_made(make):
    with pytest.raises(ValueError, match=r"\(got"):
        make()


def test_a_recipe_type_says_which_kinds_of_a_stage_are_searched():
    """An annotation of the stage says it, as for a number; `Tricks` omits what some tasks cannot use."""
    everywhere, images, own = (Space(model) for model in (Tricks, ImageTricks, ModuleTricks))
    assert list(everywhere.domains["mixing"].extremes()) == ["none"]
    assert list(images.domains["mixing"].extremes()) == ["none", "mixup", "cutmix"]
    assert list(own.domains["scaling"].extremes()) == ["none"]
    asked = everywhere.narrow({"mixing": ["none", "cutmix"]})
    assert list(asked.domains["mixing"].extremes()) == ["none", "cutmix"]

    class Wrong(Tricks):
        mixing: Annotated[Mixing, Choice("none", "mixdown")] = Field(NoMixing(), discriminator="kind")

    with pytest.raises(InputError, match=r"mixing: must be one of .* \(got 'mixdown'\)"):
        Space(Wrong).check()


def test_a_drawn_recipe_of_images_has_the_kinds_for_images():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [suggest(study.ask(), Space(ImageTricks)) for _ in range(60)]
    assert {recipe.mixing.kind for recipe in drawn} == {"none", "mixup", "cutmix"}
    assert {recipe.augmentation.kind for recipe in drawn} == {"none", "flip_crop", "trivial", "rand"}
    assert {recipe.zero_gamma.kind for recipe in drawn} == {"none"}


def test_what_is_searched_is_what_trials_may_differ_in():
    space = Space(Tricks).pin({"optimizer": {"kind": "adam", "lr": 0.01}, "clipping": "none"})
    found = space.searched()
    assert "optimizer.adam.beta1" in found
    never = {"optimizer", "optimizer.adam.lr", "optimizer.sgd.lr", "clipping", "clipping.norm.theta"}
    assert not never & set(found)
    assert "mixing" not in found
    assert "mixing" in Space(ImageTricks).searched()


def test_a_wrong_path_is_told_by_narrow_as_by_pin():
    with pytest.raises(InputError, match=r"adam.lrr: no such field.*did you mean"):
        Space(Tricks).narrow({"optimizer.adam.lrr": {"low": 0.1, "high": 0.2}})
    with pytest.raises(InputError, match=r"a space needs a recipe type, such as Tricks \(got"):
        Space(Tricks())
