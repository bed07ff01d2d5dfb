"""Does an ablation compare what it claims, each arm at its own learning rate, and is it true?"""

import functools
import json
from pathlib import Path

import numpy as np
import optuna
import pytest
import tiny_study
import torch
from conftest import optimize
from hypothesis import given
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient
from test_study import store
from torch import nn

from lightning_tricks import InMemoryData, InputError, Space, Task, Tricks, ablate, create_study
from lightning_tricks.search.keys import (
    ABLATION,
    COMPARISON,
    ENTRY,
    PHASE,
    RATES,
    SEED,
    SEED_INDEX,
    VERDICT,
    kept,
)
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.selection.ablation import (
    Ablation,
    Effect,
    Speed,
    level_for,
    speed,
    target,
    together,
    worth,
)
from lightning_tricks.selection.arms import arms, pairs, rates, steadiest
from lightning_tricks.selection.intervals import Interval
from lightning_tricks.selection.result import Verdict
from lightning_tricks.tracking.agreement import differences
from lightning_tricks.tracking.holdings import NUMBER, PARENT

SPACE = Space(Tricks)
PLAIN = SPACE.nearest(Tricks.plain())
CHAMPION = Tricks(dropout={"kind": "dropout", "p": 0.3}, optimizer={"kind": "lion"})


def test_each_arm_differs_by_one_trick():
    found = arms(SPACE, CHAMPION, PLAIN)
    stages = set(CHAMPION.differences(PLAIN))
    for family, recipe in (("leave one out", CHAMPION), ("add one in", PLAIN)):
        own = [arm for arm in found if arm.family == family]
        assert {arm.stages[0] for arm in own} == stages
        for arm in own:
            assert set(arm.recipe.differences(recipe)) == set(arm.stages)
            other = PLAIN if recipe is CHAMPION else CHAMPION
            (stage,) = arm.stages
            assert getattr(arm.recipe, stage) == getattr(other, stage)
    assert len({arm.name for arm in found}) == len(found)


def test_a_pinned_trick_cannot_be_taken_out():
    space = SPACE.pin({"dropout": "dropout"})
    plain = space.nearest(Tricks.plain())
    found = arms(space, CHAMPION, plain)
    assert "dropout" not in {arm.stages[0] for arm in found if arm.family == "leave one out"} or (
        plain.dropout.p != CHAMPION.dropout.p
    )
    for arm in found:
        assert space.nearest(arm.recipe) == arm.recipe


def test_a_learning_rate_is_no_trick():
    plain = NARROW.nearest(Tricks.plain())
    faster = {**plain.model_dump(), "optimizer": {"kind": "adam", "lr": 1e-2}}
    other = NARROW.nearest(Tricks.parse(faster))
    assert set(other.differences(plain)) == {"optimizer"}
    assert not arms(NARROW, other, plain)


def test_pairs_are_of_the_strongest():
    effects = {"dropout": 0.01, "optimizer": -0.5, "normalization": 0.3, "initialization": 0.2}
    found = pairs(SPACE, CHAMPION, PLAIN, effects)
    assert {arm.stages for arm in found} == {
        ("optimizer", "normalization"),
        ("optimizer", "initialization"),
        ("normalization", "initialization"),
    }
    assert set(found[0].recipe.differences(CHAMPION)) == {"optimizer", "normalization"}


@pytest.mark.parametrize("kind", ["adam", "sgd", "lion"])
def test_rates_are_those_of_the_search_evenly_on_a_log_scale(kind):
    recipe = Tricks(optimizer={"kind": kind})
    found = rates(SPACE, recipe)
    tried = [other.optimizer.lr for other in found]
    low, high = SPACE.domains[f"optimizer.{kind}.lr"].extremes()
    assert (tried[0], tried[-1], len(tried)) == (low, high, 6)
    np.testing.assert_allclose(np.diff(np.log(tried)), np.log(high / low) / 5)
    for other in found:
        assert set(other.differences(recipe)) <= {"optimizer"}
        assert SPACE.nearest(other) == other


def test_a_rate_that_is_pinned_or_one_of_few_is_all_there_is():
    pinned = SPACE.pin({"optimizer.adam.lr": 0.01})
    assert [r.optimizer.lr for r in rates(pinned, Tricks())] == [0.01]
    few = SPACE.narrow({"optimizer.adam.lr": [0.001, 0.01]})
    assert [r.optimizer.lr for r in rates(few, Tricks())] == [0.001, 0.01]


scores = st.dictionaries(st.integers(0, 4), st.floats(-1, 1), min_size=5)


@given(scores, st.floats(-1, 1))
def test_what_a_trick_is_worth_is_paired_and_signed(without, gain):
    having = {seed: value + gain for seed, value in without.items()}
    assert worth(having, without, 0.95, 1).mean == pytest.approx(gain, abs=1e-9)
    assert worth(having, without, 0.95, -1).mean == pytest.approx(-gain, abs=1e-9)
    narrow, wide = worth(having, without, 0.95, 1), worth(having, without, level_for(20), 1)
    assert wide.high - wide.low >= narrow.high - narrow.low


def test_what_was_not_trained_twice_is_not_told():
    assert worth({0: 1.0}, {0: 0.5, 1: 0.5}, 0.95, 1) is None
    assert worth({0: 1.0, 1: 1.0}, {2: 0.5, 3: 0.5}, 0.95, 1) is None


@given(scores, st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1))
def test_an_interaction_is_what_two_are_worth_beyond_each(neither, first, second, more):
    one = {seed: value + second for seed, value in neither.items()}  # without the first
    other = {seed: value + first for seed, value in neither.items()}
    whole = {seed: value + first + second + more for seed, value in neither.items()}
    assert together(whole, one, other, neither, 0.95, 1).mean == pytest.approx(more, abs=1e-9)


def test_idle_tricks_are_called_effective_in_at_most_5_of_100_ablations():
    generator = np.random.default_rng(0)
    claims = 0
    for _ in range(400):
        shared = generator.normal(0, 1, size=5)
        recipes = shared + generator.normal(0, 1, size=(21, 5))
        champion, *others = [dict(enumerate(row)) for row in recipes]
        found = [worth(champion, other, level_for(20), 1) for other in others]
        claims += any(effect.excludes_zero for effect in found)
    assert claims <= 400 * 0.05 + 2 * (400 * 0.05 * 0.95) ** 0.5


def test_how_soon_a_score_is_reached():
    curves = [[0.1, 0.5, 0.7, 0.8], [0.2, 0.3, 0.6, 0.6], [0.1, 0.1, 0.1, 0.2]]
    assert target(curves) == pytest.approx(0.3)
    found = speed(curves, 0.6, 1)
    assert (found.epochs, found.reached, found.trainings) == (3.0, 2, 3)
    assert str(found) == "3.0 (1 of 3 never)"
    assert str(speed(curves, 0.9, 1)) == "never"
    assert speed([[0.9, 0.4]], 0.5, -1).epochs == 2.0
    assert target([]) is None


def test_a_headline_tells_what_was_found_and_of_what_nothing_was():
    def effect(family, stage, low):
        slow = Speed(None, 0, 3)
        return Effect(family, (stage,), stage, None, None, Interval(0.2, low, 0.4), slow)

    taken = effect("leave one out", "dropout", -0.1)
    alone = [effect("add one in", "dropout", 0.1), effect("add one in", "schedule", -0.1)]
    said = Ablation(3, 5, 6, 0.99, (), (taken, *alone)).headline()
    assert "Taken out one by one, no effect was found for dropout." in said
    found = "these make a difference: dropout (0.2000 ± 0.1500)"
    assert f"Added to plain, {found}; no effect was found for schedule." in said


# The study as a whole.

search = functools.partial(optimize, n_trials=3, finalists=1, seeds=3, progress=False, workers="inline")
SEARCHED = ("normalization", "scaling", "optimizer")
FEW = {stage: getattr(Tricks(), stage) for stage in Tricks.model_fields if stage not in SEARCHED}
FEW |= {"optimizer": "adam", "optimizer.adam.beta1": 0.9, "normalization.batch.position": "before"}
KINDS = {
    "normalization": ["batch", "none"],
    "scaling": ["standardize", "none"],
}
NARROW = Space(Tricks).pin(FEW).narrow(KINDS)


def test_the_rate_of_an_arm_is_the_one_that_holds():
    once = {"0.1": 0.8, "0.4": 0.9, "1.0": 0.95}
    assert steadiest(["1.0", "0.4"], once, {"1.0": 0.1, "0.4": 0.9}) == "0.4"
    assert steadiest(["1.0", "0.4"], once, {"0.4": 0.9}) == "0.4"  # the other one diverged
    assert steadiest(["1.0", "0.4"], once, {}) == "1.0"  # both diverged
    assert steadiest(["1.0"], once, {}) == "1.0"  # only one to choose from
    assert steadiest(["0.4", "0.1"], once, {"0.4": 0.7, "0.1": 0.8}) == "0.4"  # a tie: better at first


@pytest.fixture
def study(with_store):
    return create_study("tiny", storage="optuna.journal")


def mlp_of_six(tricks):
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))


def loud(backbone=mlp_of_six):
    """Return a task with inputs far from 0, where plain does not learn, so the champion has tricks."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(150, 6, generator=generator)
    data = InMemoryData.from_arrays(inputs + 1e3, (inputs[:, 0] > 0).long(), batch_size=32)
    return Task("tiny", data, backbone, epochs=4)


def part():
    return optuna.load_study(study_name="tiny.ablation", storage=create_study("tiny")._storage)


def test_a_study_with_an_ablation(study):
    summary = search(study, loud(), space=NARROW, ablate=True)
    found = Ablation.read(study.user_attrs[kept(ABLATION)])
    judged = Verdict.read(study.user_attrs[kept(VERDICT)])
    assert Ablation.read(json.loads(json.dumps(found.plain()))) == found
    assert found.trial == judged.trial
    assert "Ablation of the champion's" in summary.text().replace("\n", " ")
    own = part().trials
    champion = loud().tricks.parse(Outcome.read(study.trials[found.trial]).recipe)
    tricks = set(champion.differences(NARROW.nearest(Tricks.plain()))) - {"optimizer"}
    families = {}
    for effect in found.effects:
        families.setdefault(effect.family, set()).add(effect.stages)
    assert families["leave one out"] == {(stage,) for stage in tricks} == families["add one in"]

    # Every arm has its own rate: the steadier of the best two, found with
    # seeds that compare nothing.
    phases = {}
    for trial in own:
        phases.setdefault(trial.user_attrs[PHASE], set()).add(trial.user_attrs[SEED])
    assert len(phases[RATES]) == 2
    assert len(phases[COMPARISON]) == 3
    assert not phases[RATES] & phases[COMPARISON]
    for effect in found.effects:
        if effect.family != "leave one out":
            continue
        name = f"without {effect.stages[0]} (trial {found.trial})"
        tried = [t for t in own if t.user_attrs[ENTRY].startswith(f"{name} · lr")]
        once, twice = ([t for t in tried if t.user_attrs[SEED_INDEX] == draw] for draw in (0, 1))
        assert (len(once), len(twice)) == (6, 2)
        values = sorted((t.value for t in once if t.value is not None), reverse=True)
        assert {t.user_attrs[ENTRY] for t in twice} <= {
            t.user_attrs[ENTRY] for t in once if t.value is not None and t.value >= values[1]
        }
        means = {
            Outcome.read(second).recipe["optimizer"]["lr"]: first.value + second.value
            for first in once
            for second in twice
            if first.user_attrs[ENTRY] == second.user_attrs[ENTRY]
        }
        assert means[effect.rate] == max(means.values())
        compared = {t.user_attrs[SEED_INDEX]: t for t in own if t.user_attrs[ENTRY] == name}
        assert {Outcome.read(t).recipe["optimizer"]["lr"] for t in compared.values()} == {effect.rate}
        champions = {
            t.user_attrs[SEED_INDEX]: t.value
            for t in own
            if t.user_attrs[ENTRY] == f"champion (trial {found.trial})"
        }
        gaps = [champions[draw] - compared[draw].value for draw in range(3)]
        assert effect.worth.mean == pytest.approx(np.mean(gaps))

    # MLflow: the ablation has its own parent, and both stores agree.
    client = MlflowClient(store())
    experiment = client.get_experiment_by_name("tiny").experiment_id
    runs = client.search_runs([experiment], max_results=1000)
    names = {run.info.run_id: run.info.run_name for run in runs}
    parents = {run.data.tags[PARENT] for run in runs if NUMBER in run.data.tags}
    assert sorted(names[parent] for parent in parents) == ["ablation", "tiny", "verdict"]
    for some in (study, part()):
        assert not differences(some, loud(), store())

    # A repeated ablation trains nothing, from Python too.
    again = ablate(study, loud(), seeds=3, space=NARROW, progress=False, workers="inline")
    assert again == found
    assert len(part().trials) == len(own)


@pytest.mark.slow
def test_an_ablation_that_is_interrupted_goes_on_to_the_same_end(study):
    search(study, loud(), space=NARROW)
    options = {"space": NARROW, "seeds": 3, "progress": False, "workers": "inline"}

    def backbone(tricks):
        names = optuna.get_all_study_names(study._storage)
        trials = part().trials if "tiny.ablation" in names else []
        if sum(trial.state.is_finished() for trial in trials) >= 7:
            raise KeyboardInterrupt
        return mlp_of_six(tricks)

    with pytest.raises(KeyboardInterrupt):
        ablate(study, loud(backbone), same_task=True, **options)
    assert kept(ABLATION) not in study.user_attrs
    before = {t.number: t.value for t in part().trials if t.state.is_finished()}
    assert len(before) >= 7
    found = ablate(study, loud(), same_task=True, **options)
    assert before.items() <= {t.number: t.value for t in part().trials}.items()
    assert not differences(part(), loud(), store())
    assert Ablation.read(study.user_attrs[kept(ABLATION)]) == found


@pytest.mark.usefixtures("without_mlflow")
def test_a_champion_without_tricks_has_none_to_take_out(study):
    bare = {"scaling": "none", "normalization": "none"}
    others = {path: value for path, value in FEW.items() if not path.startswith("normalization")}
    space = Space(Tricks).pin(others | bare)
    search(study, loud(), space=space, ablate=True)
    found = Ablation.read(study.user_attrs[kept(ABLATION)])
    assert not found.effects
    assert "no trick to take out" in found.headline()
    assert not part().trials


@pytest.mark.usefixtures("without_mlflow")
def test_an_ablation_needs_a_verdict(study):
    with pytest.raises(InputError, match="an ablation is of a verdict's champion"):
        search(study, loud(), finalists=0, ablate=True)
    assert not study.trials


@pytest.mark.slow
def test_from_the_command_line_to_the_report(with_store, capsys):
    arguments = ["--n-trials", "3", "--finalists", "1", "--seeds", "3", "--workers", "inline"]
    pins = {path: getattr(value, "model_dump", lambda v=value: v)() for path, value in FEW.items()}
    Path("few.yaml").write_text(json.dumps({"pin": pins, "narrow": KINDS}), encoding="utf-8")
    arguments += ["--space", "few.yaml"]
    assert tiny_study.main(loud, [*arguments, "--ablate"]) == 0
    assert "Ablation of the champion's" in capsys.readouterr().out.replace("\n", " ")
    assert tiny_study.main(loud, ["--space", "few.yaml", "--check"]) == 0
    assert "and the runs of its verdict and its ablation" in capsys.readouterr().out
    client = MlflowClient(store())
    experiment = client.get_experiment_by_name("tiny").experiment_id
    (parent,) = client.search_runs([experiment], "tags.`role` = 'ablation'")
    children = client.search_runs([experiment], f"tags.`{PARENT}` = '{parent.info.run_id}'")
    client.delete_run(children[0].info.run_id)
    assert tiny_study.main(loud, ["--space", "few.yaml", "--check"]) == 1
    assert "ablation: trial" in capsys.readouterr().out
    assert tiny_study.main(loud, ["--space", "few.yaml", "--check", "--repair"]) == 0
    assert tiny_study.main(loud, ["--space", "few.yaml", "--check"]) == 0
    assert tiny_study.main(loud, ["--space", "few.yaml", "--report", "tiny.html"]) == 0
    page, text = (Path(name).read_text(encoding="utf-8") for name in ("tiny.html", "tiny.md"))
    assert "What each trick is worth" in page
    assert "leave one out" in text
    assert "add one in" in page
