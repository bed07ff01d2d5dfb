"""What a study begins with: the shipped prior, or what earlier studies found."""

import numpy as np
import optuna
import pytest
from conftest import mlp, optimize, small_data
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import create_trial

from lightning_tricks import ImageTricks, InputError, Space, Task, Tricks, create_study, load_study
from lightning_tricks import main as script
from lightning_tricks.scores import rank_of
from lightning_tricks.search import keys
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.sampling.effects import expected_effects
from lightning_tricks.search.sampling.learning import BEST
from lightning_tricks.search.sampling.prior import prior_of, shipped
from lightning_tricks.search.studies import finished
from lightning_tricks.space.trick import stages

CHOICE = CategoricalDistribution(["a", "b", "c"])
DIRECTION = StudyDirection.MAXIMIZE


def trials(worth, count, seed=0):
    """Return trials of two choices with a noisy score, the sum of the worth of their options."""
    luck = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        params = {name: str(luck.choice(CHOICE.choices)) for name in ("one", "two")}
        score = sum(worth[option] for option in params.items()) + luck.normal(0, 0.3)
        distributions = dict.fromkeys(params, CHOICE)
        found.append(create_trial(params=params, distributions=distributions, value=score))
    return found


WORTH = {
    (name, option): w for name in ("one", "two") for option, w in zip("abc", (0, 1, 2), strict=True)
}
PRIOR = {option: (worth - 1) / 2 for option, worth in WORTH.items()}


def favorite(effects, name):
    return max(CHOICE.choices, key=lambda option: effects[name, option])


def test_before_much_is_known_the_prior_decides():
    effects = expected_effects(trials(dict.fromkeys(WORTH, 0.0), 1), DIRECTION, PRIOR)
    assert [favorite(effects, name) for name in ("one", "two")] == ["c", "c"]


@pytest.mark.parametrize("seed", range(5))
def test_a_reversed_prior_is_seen_through(seed):
    reversed_prior = {option: -effect for option, effect in PRIOR.items()}
    effects = expected_effects(trials(WORTH, 12, seed), DIRECTION, reversed_prior)
    assert [favorite(effects, name) for name in ("one", "two")] == ["c", "c"]


def test_a_true_prior_teaches_more_than_none():
    def error(prior):
        found = expected_effects(trials(WORTH, 6), DIRECTION, prior)
        gaps = [found[name, "c"] - found[name, "a"] for name in ("one", "two")]
        return min(gaps)

    assert error(PRIOR) > error({})


def test_the_shipped_prior_names_kinds_that_exist():
    known = {stage: set(options) for stage, options in stages(ImageTricks).items()}
    for stage, effects in shipped().items():
        assert set(effects) <= known[stage], stage
        assert all(abs(effect) < 2 for effect in effects.values())
    assert len(shipped()) > 8


def task(name="new"):
    return Task(name, small_data(), lambda tricks: mlp(), epochs=3)


def searched(name, n_trials, learn_from=(), space=None):
    study = create_study(name, storage="optuna.journal", epochs=3)
    optimize(
        study,
        task(name),
        n_trials=n_trials,
        space=space,
        learn_from=learn_from,
        workers="inline",
        tracking_uri=None,
        progress=False,
    )
    return load_study(name, "optuna.journal")


def test_a_study_tries_first_what_was_best_elsewhere():
    searched("old", 8)
    old = load_study("old", "optuna.journal")
    new = searched("new", 3 + BEST, learn_from=[old])
    complete = [trial for trial in old.trials if trial.value is not None]
    best = sorted(complete, key=lambda trial: rank_of(trial, "max"))[:BEST]
    first = [Outcome.read(trial).recipe for trial in new.trials[: 2 + BEST]]
    assert all(Outcome.read(trial).recipe in first for trial in best)
    assert new.user_attrs[keys.PRIOR] != shipped()
    assert prior_of(new)["optimizer", "adam"] == new.user_attrs[keys.PRIOR]["optimizer"]["adam"]
    assert prior_of(old)["optimizer", "adam"] == shipped()["optimizer"]["adam"]


def test_what_does_not_fit_is_said(capsys):
    searched("old", 4, space=Space(Tricks).pin({"optimizer": "lion"}))
    study = create_study("new", storage="optuna.journal", epochs=3)
    optimize(
        study,
        task(),
        n_trials=3,
        space=Space(Tricks).narrow({"optimizer": ["adam", "sgd"]}),
        learn_from=[load_study("old", "optuna.journal")],
        workers="inline",
        tracking_uri=None,
    )
    assert "learned from 4 trials of 'old'; not in this space: optimizer lion" in capsys.readouterr().err
    recipes = [Outcome.read(trial).recipe for trial in finished(study)]
    assert {recipe["optimizer"]["kind"] for recipe in recipes} == {"adam", "sgd"}


def test_a_study_that_has_begun_learns_nothing_more(capsys):
    searched("old", 3)
    searched("new", 3)
    study = create_study("new", storage="optuna.journal", epochs=3)
    optimize(
        study,
        task(),
        n_trials=4,
        learn_from=[load_study("old", "optuna.journal")],
        workers="inline",
        tracking_uri=None,
    )
    assert "began without earlier studies to learn from" in capsys.readouterr().err
    assert keys.PRIOR not in study.user_attrs


@pytest.mark.parametrize("source", ["nobody", "nobody@other.journal", "new@sqlite:///no/folder.db"])
def test_an_unknown_study_to_learn_from_is_one_line_and_nothing_is_made(source, tmp_path, capsys):
    code = script(task, ["--learn-from", source, "--tracking-uri", "none"])
    assert code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_prior_is_named():
    study = searched("new", 2)
    study.set_user_attr(keys.PRIOR, {"optimizer": {"adam": "much"}})
    with pytest.raises(InputError, match="prior of study 'new'"):
        searched("new", 3)
    assert isinstance(study, optuna.Study)
