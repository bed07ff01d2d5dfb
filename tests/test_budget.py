"""A budget over a whole study: it is kept, in epochs exactly, and the study is the same each time."""

import contextlib
import io
import itertools
import math
import re
import shutil
from pathlib import Path

import numpy as np
import optuna
import pytest
from conftest import mlp, optimize, small_data
from hypothesis import given
from hypothesis import strategies as some
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import create_trial

from lightning_tricks import InputError, Observer, Space, Task, Tricks, create_study, load_study
from lightning_tricks.budget import Budget
from lightning_tricks.search import keys
from lightning_tricks.search.outcomes import Outcome, counted
from lightning_tricks.search.sampling.outlook import expected_gain, matters
from lightning_tricks.search.studies import trials_of_part
from lightning_tricks.selection.terms import Terms
from lightning_tricks.study.spending import Spending, Spent, spent_on

EPOCHS = 2


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("2h", 7200, "seconds"),
        ("1h30m", 5400, "seconds"),
        ("90 min", 5400, "seconds"),
        (" 1.5 H ", 5400, "seconds"),
        ("2d", 172_800, "seconds"),
        ("45s", 45, "seconds"),
        ("3000 epochs", 3000, "epochs"),
        ("1epoch", 1, "epochs"),
    ],
)
def test_a_budget_is_a_time_or_a_number_of_epochs(text, amount, unit):
    assert Budget.read(text) == Budget(amount, unit)


@given(some.integers(1, 10**9), some.sampled_from(["seconds", "epochs"]))
def test_what_a_budget_is_written_as_can_be_read(amount, unit):
    assert Budget.read(str(Budget(amount, unit))) == Budget(amount, unit)


@pytest.mark.parametrize(
    "text",
    ["", "2", "h", "-2h", "0 epochs", "0s", "1.5 epochs", "2h 3 epochs", "inf", "9" * 12 + "s", "2 x"],
)
def test_nonsense_is_no_budget(text):
    with pytest.raises(InputError, match="a time or a number of epochs above 0"):
        Budget.read(text)


def test_what_is_left_of_a_time_follows_from_what_an_epoch_took():
    spending = Spending(Budget(1000, "seconds"), before=500)
    assert spending.left([]) == math.inf
    stage = [Spent(epochs=10, at=300, began=100), Spent(epochs=30, at=500, began=310)]
    assert spending.left(stage) == pytest.approx((1000 - 20 - 500) / 10, abs=0.1)
    assert spending.left(stage, share=0.5) == pytest.approx((490 - 500) / 10, abs=0.1)
    later = spending.after(stage)
    assert later.left([]) == pytest.approx(spending.left(stage), abs=0.1)
    slower = [Spent(epochs=1, at=500, began=400)]
    assert later.left(slower) == pytest.approx(480 / 100, abs=0.1)


def test_what_is_left_of_a_number_of_epochs_is_exact():
    spending = Spending(Budget(100, "epochs")).after([Spent(30, 1, 0)])
    assert spending.left([Spent(20, 2, 1)]) == 50
    assert spending.left([Spent(20, 2, 1)], share=0.5) == 0
    assert Spending(None).left([Spent(20, 2, 1)]) == math.inf


def task(repeats=1):
    return Task("budgets", small_data(), lambda tricks: mlp(), epochs=EPOCHS, repeats=repeats)


def studied(folder, budget="80 epochs", repeats=1, **options):
    study = create_study("budgets", storage=folder / "optuna.journal", epochs=EPOCHS, seed=1)
    given = {
        "workers": "inline",
        "fuse": "off",
        "finalists": 3,
        "seeds": 3,
        "progress": False,
        **options,
    }
    given |= {"tracking_uri": None, "checkpoints": folder / "checkpoints"}
    return optimize(study, task(repeats), budget=budget, seed=1, **given)


def taken(folder, repeats=1):
    """Return what a study took in epochs, by stage."""
    study = load_study("budgets", folder / "optuna.journal")
    stages = [(study.trials, repeats), *((trials_of_part(study, part), 1) for part in keys.PARTS)]
    return [sum(one.epochs for one in spent_on(trials, number)) for trials, number in stages]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of an undisturbed study, its verdict and what it printed."""
    folder, shown = tmp_path_factory.mktemp("whole"), io.StringIO()
    with contextlib.redirect_stderr(shown):
        verdict = studied(folder, progress=True).verdict
    return folder, verdict, shown.getvalue()


@pytest.fixture
def copied(whole, tmp_path):
    """Return the test's own copy of the undisturbed study's folder."""
    return Path(shutil.copytree(whole[0], tmp_path / "copied"))


@pytest.mark.parametrize("repeats", [1, 2])
def test_a_number_of_epochs_is_spent_but_not_exceeded(repeats, whole, tmp_path):
    folder = whole[0] if repeats == 1 else tmp_path
    if repeats > 1:
        studied(folder, repeats=repeats)
    search, verdict, ablation = taken(folder, repeats)
    assert 0.85 * 80 <= search + verdict <= 80  # the next pair of trainings would not fit
    assert ablation == 0
    assert abs(search - 40) <= 6


def test_the_ablation_gets_its_share_with_as_many_seeds_as_it_affords(tmp_path):
    searched = ("normalization", "schedule", "dropout")
    pins = {stage: getattr(Tricks.plain(), stage).kind for stage in Tricks.model_fields}
    few = Space(Tricks).pin({stage: kind for stage, kind in pins.items() if stage not in searched})
    studied(tmp_path, "500 epochs", ablate=True, space=few)  # enough for any champion's
    assert 0.85 * 500 <= sum(taken(tmp_path)) <= 1.02 * 500
    assert taken(tmp_path)[2] > 100


def test_an_ablation_that_the_budget_does_not_afford_leaves_its_share_to_the_verdict(tmp_path, capsys):
    studied(tmp_path, "100 epochs", ablate=True, progress=True)
    assert re.search(
        r"no ablation: it needs \d+ trainings, and about \d+ are left", capsys.readouterr().err
    )
    assert 85 <= sum(taken(tmp_path)) <= 100


def test_it_says_at_the_start_what_it_affords(whole):
    folder, _, shown = whole
    trials = int(re.search(r"the budget of 80 epochs affords about (\d+) trials and (\d+)", shown)[1])
    held = load_study("budgets", folder / "optuna.journal")
    planned = held.user_attrs[keys.PLANNED]
    assert planned == {"budget": "80 epochs", "trials": counted(held.trials)}
    assert abs(planned["trials"] - trials) <= 3


def test_a_study_that_is_asked_again_is_not_trained_further(whole, copied):
    verdict, before = whole[1], taken(copied)
    assert studied(copied).verdict == verdict
    assert studied(copied, budget=None, n_trials=6).verdict == verdict
    assert taken(copied) == before


def test_a_larger_budget_goes_on(copied):
    before = taken(copied)
    studied(copied, "120 epochs")
    assert 0.9 * 120 <= sum(taken(copied)) <= 120
    assert all(now > then for now, then in zip(taken(copied)[:2], before, strict=False))


class Interrupting(Observer):
    """Interrupts the study at its n-th event."""

    def __init__(self, at):
        self.left = at

    def epoch(self, number, epoch):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def trials_in(folder):
    study = load_study("budgets", folder / "optuna.journal")
    parts = [study.trials, *(trials_of_part(study, part) for part in keys.PARTS)]
    return [
        (trial.number, trial.state, trial.value, Outcome.read(trial).recipe)
        for trials in parts
        for trial in trials
    ]


def test_an_interrupted_study_takes_the_same_trials(whole, tmp_path):
    for at in itertools.count(10, 10):
        try:
            found = studied(tmp_path, observers=[Interrupting(at)]).verdict
            break
        except KeyboardInterrupt:
            continue
    assert at > 20  # it was interrupted a few times
    assert trials_in(tmp_path) == trials_in(whole[0])
    assert found == whole[1]


def test_a_time_ends_the_search_and_leaves_some_for_the_verdict(tmp_path, capsys):
    studied(tmp_path, "6s", progress=True)
    shown = capsys.readouterr().err
    assert "no further trials after" in shown
    search, verdict, _ = taken(tmp_path)
    assert search > 0
    assert verdict > 0


def test_time_of_earlier_runs_counts(tmp_path):
    studied(tmp_path, "4s", finalists=0)
    trials = len(load_study("budgets", tmp_path / "optuna.journal").trials)
    studied(tmp_path, "4s", finalists=0)
    assert len(load_study("budgets", tmp_path / "optuna.journal").trials) == trials


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"budget": None}, "needs an end: give n_trials or budget"),
        ({"budget": "soon"}, "must be a time or a number of epochs"),
        (
            {"budget": "20 epochs"},
            "at least 46 epochs, for 6 trials and a verdict of 17 trainings",
        ),
        ({"budget": "10 epochs", "finalists": 0}, "must be at least 12 epochs, for 6 trials"),
        ({"verdict_budget": 30}, "budget or verdict_budget, not both"),
        ({"n_trials": 0}, "n_trials must be"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_before_anything_is_made(given, message, tmp_path):
    with pytest.raises(InputError, match=message):
        studied(tmp_path, **given)
    assert not (tmp_path / "checkpoints").exists()


def test_the_fewest_trainings_of_a_verdict():
    assert Terms(6, 5).fewest == 6 + 3 + 2 + 2 * 5 + 6


CHOICES = {
    "optimizer": CategoricalDistribution(["sgd", "adam", "muon"]),
    "norm": CategoricalDistribution(["none", "batch"]),
    "lr": FloatDistribution(0.0, 1.0),
}


def simulated(effect, noise, count, seed=0):
    """Return trials whose score is an effect of their optimizer, and noise; the best one first."""
    random = np.random.default_rng(seed)
    drawn = [
        {
            "optimizer": random.choice(["sgd", "adam"]),
            "norm": random.choice(["none", "batch"]),
            "lr": 0.5,
        }
        for _ in range(count)
    ]
    scores = [effect * (one["optimizer"] == "adam") + noise * random.normal() for one in drawn]
    trials = [
        create_trial(
            params={k: v if k == "lr" else str(v) for k, v in one.items()},
            distributions=CHOICES,
            value=score,
        )
        for one, score in zip(drawn, scores, strict=True)
    ]
    return sorted(trials, key=lambda trial: -trial.value)


def test_little_can_be_gained_where_no_choice_made_a_difference():
    gain = expected_gain(simulated(0.0, 1.0, 100), StudyDirection.MAXIMIZE)
    assert gain < 0.4


def test_much_can_be_gained_by_what_was_hardly_tried():
    trials = simulated(2.0, 0.5, 60)
    worst_first = [trials[-1], *trials[:-1]]
    assert expected_gain(worst_first, StudyDirection.MAXIMIZE) > 2
    assert expected_gain(trials, StudyDirection.MAXIMIZE) < 1


def test_a_search_of_numbers_alone_never_ends_early():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("lr", 0, 1), n_trials=80)
    assert matters(study)


def test_a_search_whose_choices_make_no_difference_ends_early():
    random = np.random.default_rng(0)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(
        lambda trial: (trial.suggest_categorical("norm", ["none", "batch"]) == "") + random.normal(),
        n_trials=39,
    )
    assert matters(study)
    study.optimize(
        lambda trial: (trial.suggest_categorical("norm", ["none", "batch"]) == "") + 9.0, n_trials=60
    )
    assert not matters(study)
