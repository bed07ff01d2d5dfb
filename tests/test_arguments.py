"""Arguments of another type, and samplers that fail, are refused in one line."""

import optuna
import pytest
import tiny_study
from conftest import optimize

from lightning_tricks import InputError, Tricks, create_study, load_study, train

WRONG = {
    "study": ("tiny", 0, optuna.Study),
    "task": (None, {}, tiny_study.task),
    "learn_from": ("tiny", ["tiny"], None),
    "ray_address": (3, ["auto"]),
    "tracking_uri": (3, False),
    "checkpoints": (None, 3),
    "observers": (None, print, [print], "x"),
    "progress": ("no", 1),
    "ablate": ("no", None),
    "callbacks": (None, [3]),
    "space": ({}, "space.yaml"),
    "stall_minutes": ("x", None, 0),
    "timeout": ("x", -1),
    "workers": (2.5, []),
    "finalists": ("2", -1, True),
}


def search(study, task, **options):
    given = {"n_trials": 6, "workers": "inline", "tracking_uri": None, "progress": False}
    return optimize(study, task, **{**given, **options})


@pytest.mark.parametrize(
    ("name", "value"), [(name, one) for name, some in WRONG.items() for one in some]
)
def test_an_argument_of_another_type_is_refused_by_its_name(name, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = optuna.create_study(study_name="tiny", direction="maximize")
    given = {"study": study, "task": tiny_study.task(), name: value}
    with pytest.raises(InputError, match=rf"\b{name}\b") as caught:
        search(**given)
    assert "\n" not in str(caught.value)
    assert not study.trials
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("tricks", "seed"), [("adam", 0), ({"optimizer": "adam"}, 0), (None, 0)])
def test_a_recipe_to_train_is_of_its_type(tricks, seed):
    with pytest.raises(InputError, match="tricks must be of type Tricks"):
        train(tiny_study.task(), tricks, seed)


@pytest.mark.parametrize("seeds", [3, "12", [0.5], [-1], [None], [True]])
def test_seeds_are_whole_numbers(seeds):
    with pytest.raises(InputError, match=r"seeds? must be .*whole number"):
        train(tiny_study.task(), Tricks(), seeds=seeds)


def test_a_sampler_that_fails_is_named_and_another_one_continues_its_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = tiny_study.task()
    grid = optuna.samplers.GridSampler({"learning_rate": [0.1, 0.01]})
    with pytest.raises(InputError, match=r"the sampler GridSampler fails: .* give another one"):
        search(create_study(task, sampler=grid), task)
    held = load_study("tiny", "optuna.journal").trials
    known = {trial.number: trial.value for trial in held if trial.value is not None}
    assert known
    study = create_study(task, sampler="random")
    search(study, task)
    assert {number: study.trials[number].value for number in known} == known
    assert all(trial.state.is_finished() for trial in study.trials)


def test_a_pruner_object_stops_trials(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = tiny_study.task()
    never = optuna.pruners.ThresholdPruner(lower=2.0)
    study = create_study(task, storage=None, pruner=never)
    search(study, task, n_trials=3)
    states = [trial.state for trial in study.trials]
    assert optuna.trial.TrialState.PRUNED in states
