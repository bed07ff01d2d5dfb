"""Is the champion the one that the rules name, and are the intervals true?"""

import functools
import json
import warnings
from collections import Counter
from pathlib import Path

import calibration
import mlflow
import numpy as np
import optuna
import pytest
import tiny_study
import torch
import torch.nn.functional as F
from conftest import mlp, small_data
from hypothesis import given
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient
from scipy import stats
from test_study import store, task
from torch import nn

import lightning_tricks
from lightning_tricks import InputError, Tricks, create_study, optimize
from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.module.ensemble import Ensemble
from lightning_tricks.search.outcomes import CHAMPION, DRAW, ENTRY, PHASE, SEED, VERDICT, Outcome
from lightning_tricks.selection.champion import choose, simplicity
from lightning_tricks.selection.intervals import Interval, bootstrap, chance, difference, mean_interval
from lightning_tricks.selection.race import ERROR, FIRST, Race
from lightning_tricks.selection.result import Verdict
from lightning_tricks.study.conclusion import report_of
from lightning_tricks.tracking.agreement import differences
from lightning_tricks.tracking.holdings import NUMBER, PARENT
from lightning_tricks.tracking.registry import _tracking_uri

numbers = st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=9)


@given(numbers)
def test_an_interval_is_that_of_student(values):
    found = mean_interval(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy's, of values that are all the same
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    if np.std(values) > 0:
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9, abs=1e-9)
    assert found.low <= found.mean <= found.high


def test_of_one_value_nothing_is_said():
    assert mean_interval([0.5]) == Interval(0.5, None, None)
    assert str(mean_interval([0.5])) == "0.5000"
    assert not mean_interval([0.5]).excludes_zero


@given(numbers, st.floats(0.01, 5))
def test_pairs_tell_apart_what_the_spread_over_seeds_hides(values, gain):
    better = [value + gain for value in values]
    assert difference(better, values).mean == pytest.approx(gain, rel=1e-6)
    assert chance(better, values) < 0.01
    assert chance(values, better) > 0.99
    assert chance(values, values) == 1.0


def test_a_bootstrap_over_seeds_and_samples_covers_the_true_score():
    """In 200 repeats with 5 models and 150 samples; binomial bounds of the nominal 95 %."""
    generator = np.random.default_rng(0)

    def right(outputs, targets):
        return float((outputs == targets).mean())

    covered = 0
    for repeat in range(200):
        rates = np.clip(generator.normal(0.8, 0.02, size=5), 0, 1)
        hard = generator.normal(0, 1, size=150)  # what models get wrong they get wrong together
        targets = np.zeros(150)
        outputs = [
            (stats.norm.cdf((hard + 0.5 * generator.normal(size=150)) / 1.25**0.5) > rate).astype(float)
            for rate in rates
        ]
        found = bootstrap(right, outputs, targets, seed=repeat, resamples=200)
        covered += found.low <= 0.8 <= found.high
    assert 180 <= covered <= 200


def test_models_that_are_right_about_all_of_a_few_samples_have_a_score_without_bounds():
    targets = np.arange(36) % 3
    found = bootstrap(lambda some, true: float((some == true).mean()), [targets] * 5, targets)
    assert str(found) == "1.0000"
    assert not found.excludes_zero


def race(means, seeds, noise, generator, shared=1.0):
    """Run a race of records with some true means; noise that a seed has for all is shared."""
    names = ["baseline", *(f"trial {n}" for n in range(1, len(means)))]
    ran = Race(names, seeds)
    for _ in range(seeds):
        common = generator.normal(0, shared * noise)
        scores = {n: m + common + generator.normal(0, noise) for n, m in zip(names, means, strict=True)}
        ran.add({name: scores[name] for name in ran.running})
    return ran


def test_a_race_drops_the_best_no_more_often_than_it_says():
    generator = np.random.default_rng(1)
    dropped = sum("trial 1" in race([0.0] * 8, 8, 1.0, generator).dropped for _ in range(400))
    assert dropped <= 400 * ERROR


def second_round(ran, budget, means, generator):
    """Run a race's second round; return with how many seeds."""
    further = ran.second_round(budget)
    for _ in range(further):
        common = generator.normal()
        ran.add({n: means[n] + common + generator.normal() for n in ran.running})
    return further


def test_what_is_left_of_a_budget_is_for_those_that_tie_and_the_baseline():
    generator = np.random.default_rng(4)
    means = {"baseline": 0.0, "trial 1": 0.0, "trial 2": 0.0, "trial 3": -30.0}
    ran = race(list(means.values()), 5, 1.0, generator)
    spent = sum(len(scores) for scores in ran.scores.values())
    left_out = set(ran.running) - set(ran.tied()) - {"baseline"}
    assert ran.second_round(spent + len(ran.running) - len(left_out) - 1) == 0
    assert not ran.once_more
    further = second_round(ran, 100, means, generator)
    assert further == (100 - spent) // len(ran.running)
    assert {len(ran.scores[name]) for name in ran.running} == {5 + further}
    assert "trial 3" in ran.dropped
    assert "baseline" in ran.running
    assert set(ran.running) <= {"baseline", "trial 1", "trial 2"}


def test_where_one_is_left_no_seeds_are_spent():
    ran = Race(["baseline", "trial 1"], 5)
    for number in range(5):
        ran.add({"baseline": number / 10, "trial 1": 9.0})
    assert ran.running == ["baseline", "trial 1"]  # the reference stays to the end
    assert ran.tied() == ["trial 1"]
    assert ran.second_round(1000) == 0
    assert ran.beats_reference()


def test_a_second_round_finds_what_the_first_cannot_and_seldom_more():
    """Of 8 records one is better, by as much as the noise of a seed; or none is."""
    generator = np.random.default_rng(5)
    found, claims, first = 0, 0, 0
    for _ in range(200):
        for gain in (0.0, 1.0):
            means = {"baseline": 0.0, **{f"trial {n}": 0.0 for n in range(1, 8)}, "trial 7": gain}
            ran = race(list(means.values()), 5, 1.0, generator)
            first += gain > 0 and ran.best == "trial 7" and ran.beats_reference()
            second_round(ran, 160, means, generator)
            better = ran.beats_reference()
            found += gain > 0 and ran.best == "trial 7" and better
            claims += gain == 0 and better
    assert claims <= 200 * 0.08  # what 200 draws at the nominal 5 % stay below in 98 of 100 cases
    assert found > 3 * first


def test_a_race_drops_who_is_clearly_worse_and_soon():
    generator = np.random.default_rng(2)
    ran = race([0.0, 0.0, -30.0], 5, 1.0, generator)
    assert ran.dropped == ["trial 2"]
    assert FIRST <= len(ran.scores["trial 2"]) < 5
    assert len(ran.scores["baseline"]) == 5


def test_who_has_no_score_is_out_at_once():
    ran = Race(["baseline", "trial 1"], 3)
    assert ran.add({"baseline": 1.0}) == ["trial 1"]
    assert ran.running == ["baseline"]


def test_less_may_be_better():
    ran = Race(["baseline", "trial 1"], 3, maximize=False)
    for score in (1.0, 1.1, 0.9):
        ran.add({"baseline": score, "trial 1": score - 0.5})
    assert ran.best == "trial 1"
    assert ran.tied() == ["trial 1"]


RECORDS = {
    "baseline": Tricks(),
    "plain": Tricks.plain(),
    "trial 1": Tricks(optimizer={"kind": "lion"}),
    "trial 2": Tricks(normalization={"kind": "none"}),
}


def chosen(scores, seconds=None):
    """Return the choice where each record has some scores."""
    ran = Race(list(scores), len(scores["baseline"]))
    for draw in range(len(scores["baseline"])):
        ran.add({name: values[draw] for name, values in scores.items() if name in ran.running})
    return choose(ran, RECORDS, seconds or dict.fromkeys(scores, 1.0))


NOISE = np.array([0.0, 0.2, -0.1, 0.1, -0.2])


def test_a_clear_winner_is_the_champion():
    found = chosen({"baseline": NOISE, "plain": NOISE - 9, "trial 1": NOISE + 9 + NOISE[::-1] / 9})
    assert found.name == "trial 1"
    assert found.better_than_baseline
    assert "clearly better than the baseline" in found.why


def test_of_those_that_cannot_be_told_apart_the_simplest_is_the_champion():
    close = {"baseline": NOISE, "trial 1": NOISE[::-1] + 0.01, "trial 2": NOISE[[2, 0, 1, 4, 3]]}
    found = chosen(close)
    assert (
        simplicity(RECORDS["trial 2"])
        < simplicity(RECORDS["trial 1"])
        == simplicity(RECORDS["baseline"])
    )
    assert found.name == "trial 2"
    assert not found.better_than_baseline
    assert set(found.tied) == set(close)
    cheap = chosen({n: close[n] for n in ("baseline", "trial 1")}, {"baseline": 2.0, "trial 1": 1.0})
    assert cheap.name == "trial 1"


def test_a_race_of_equals_seldom_has_a_winner_over_the_baseline():
    generator = np.random.default_rng(3)
    claims = sum(race([0.0] * 8, 5, 1.0, generator).beats_reference() for _ in range(400))
    assert claims <= 400 * ERROR


def test_plain_is_not_the_champion_for_being_simple_where_it_is_worse():
    found = chosen({"baseline": NOISE, "plain": NOISE - 1 + NOISE[::-1] / 9})
    assert found.name == "baseline"


def test_a_verdict_is_kept_as_plain_data_and_read_again():
    rows = {"champion": lightning_tricks.selection.result.Row(mean_interval([1.0, 2.0]), None)}
    choice = chosen({"baseline": NOISE, "plain": NOISE - 9})
    verdict = Verdict(("baseline", "plain"), 5, choice, 0, rows, None)
    assert Verdict.read(json.loads(json.dumps(verdict.plain()))) == verdict
    assert "the baseline" in verdict.headline("val/accuracy", "max")


def test_an_ensemble_averages_probabilities_or_numbers():
    members = [nn.Linear(4, 3) for _ in range(3)]
    inputs = torch.randn(5, 4)
    mean = torch.stack([member(inputs).softmax(1) for member in members]).mean(0)
    torch.testing.assert_close(Ensemble(members, probabilities=True)(inputs).exp(), mean)
    mean = torch.stack([member(inputs) for member in members]).mean(0)
    torch.testing.assert_close(Ensemble(members, probabilities=False)(inputs), mean)


@pytest.mark.parametrize("size", [0.0, 0.5])
def test_a_verdict_is_true_of_tasks_whose_truth_is_known(size):
    """A short run of `benchmarks/calibration.py`, with the bounds of 40 draws at the nominal rates."""
    counts, luck, gains = calibration.repeat(40, size)
    assert counts["covered"] >= 34
    assert counts["together"] >= 34
    assert np.mean(luck) > 0.1  # so much is the best of many draws too good
    if size:
        assert np.mean(gains) > 1
    else:
        assert counts["chosen"] <= 6
        assert counts["reported"] <= 4
        assert counts["effective"] <= 6


# The study as a whole.

search = functools.partial(optimize, n_trials=4, finalists=2, seeds=3, progress=False, workers="inline")


@pytest.fixture
def study(with_store):
    return create_study("tiny", storage="optuna.journal")


def verdict_study():
    return optuna.load_study(study_name="tiny.verdict", storage=create_study("tiny")._storage)


def test_a_study_with_a_verdict(study):
    summary = search(study, task())
    own = verdict_study()
    held = Verdict.read(study.user_attrs[VERDICT])
    assert summary.header[1:] == ["plain", "baseline", f"champion (trial {held.trial})", "ensemble of 3"]
    assert "Over 3 other seeds" in summary.text().replace("\n", " ")
    assert max(map(len, summary.text(80).splitlines())) <= 100

    # The trials: paired by seed, and the seeds that choose are not those that are reported.
    by_phase: dict[str, dict[int, set[int]]] = {}
    for trial in own.trials:
        attrs = trial.user_attrs
        by_phase.setdefault(attrs[PHASE], {}).setdefault(attrs[DRAW], set()).add(attrs[SEED])
        assert Outcome.read(trial).seed == attrs[SEED]
    assert all(len(seeds) == 1 for phase in by_phase.values() for seeds in phase.values())
    seeds = {phase: set.union(*draws.values()) for phase, draws in by_phase.items()}
    assert len(seeds["selection"]) == len(seeds["report"]) == 3
    assert not seeds["selection"] & seeds["report"]

    # The rows: the mean over the report's seeds alone.
    reported = [
        t.value
        for t in own.trials
        if (t.user_attrs[PHASE], t.user_attrs[ENTRY]) == ("report", "baseline")
    ]
    assert held.rows["baseline"].validation == mean_interval(reported)
    assert (
        held.rows["baseline"].test.low
        <= held.rows["baseline"].test.mean
        <= held.rows["baseline"].test.high
    )

    # MLflow: parents of their own, champion and ensemble registered, and both stores agree.
    client = MlflowClient(store())
    experiment = client.get_experiment_by_name("tiny").experiment_id
    runs = client.search_runs([experiment], max_results=1000)
    parents = {run.data.tags[PARENT] for run in runs if NUMBER in run.data.tags}
    names = {run.info.run_id: run.info.run_name for run in runs}
    assert sorted(names[parent] for parent in parents) == ["tiny", "verdict"]
    ranked = [run for run in runs if "ranking" in run.data.metrics]
    assert {names[run.data.tags[PARENT]] for run in ranked} == {"tiny"}
    assert not differences(study, task(), store())
    assert not differences(own, task(), store())
    inputs, _ = task().example()
    with _tracking_uri(store()):
        champion = mlflow.pytorch.load_model("models:/tiny@champion")
        ensemble = mlflow.pytorch.load_model("models:/tiny@ensemble")
    assert champion(inputs).shape == ensemble(inputs).shape == (len(inputs), 3)
    torch.testing.assert_close(ensemble(inputs).exp().sum(1), torch.ones(len(inputs)))


class Counted(InMemoryData):
    """Counts the looks at the test split."""

    looks = 0

    def test_dataloader(self):
        type(self).looks += 1
        return super().test_dataloader()


def test_the_test_split_is_looked_at_by_one_verdict_and_a_later_one_says_so(study):
    splits = small_data().splits
    data = Counted(splits["train"], splits["validation"], splits["test"], batch_size=8)
    first = search(study, task(data=data))
    looks, trials = Counted.looks, len(verdict_study().trials)
    again = search(study, task(data=data))
    assert (Counted.looks, len(verdict_study().trials)) == (looks, trials)
    assert again.rows == first.rows
    assert "no longer fresh" not in again.text()
    later = search(study, task(data=data), n_trials=8, finalists=3)
    assert "looked at once before" in later.text().replace("\n", " ")


def test_a_verdict_that_is_interrupted_goes_on_to_the_same_end(study):
    whole = search(study, task(), checkpoints="whole")
    expected = Verdict.read(study.user_attrs[VERDICT])
    Path("optuna.journal").unlink()

    def done():
        names = optuna.get_all_study_names(create_study("tiny", storage="optuna.journal")._storage)
        trials = verdict_study().trials if "tiny.verdict" in names else []
        return sum(trial.state.is_finished() for trial in trials)

    def backbone(tricks):
        if done() == 7:
            raise KeyboardInterrupt
        return mlp()

    with pytest.raises(KeyboardInterrupt):
        search(create_study("tiny", storage="optuna.journal"), task(backbone=backbone))
    assert done() == 7
    again = search(create_study("tiny", storage="optuna.journal"), task(), same_task=True)
    assert again.rows == whole.rows
    held = Verdict.read(create_study("tiny").user_attrs[VERDICT])
    assert held.rows == expected.rows
    assert held.champion == expected.champion


def chosen_with():
    """Return by how many seeds each record was chosen or not."""
    trials = verdict_study().trials
    names = [t.user_attrs[ENTRY] for t in trials if t.user_attrs[PHASE] == "selection"]
    return Counter(names)


def test_a_budget_is_spent_on_those_that_tie_and_a_larger_one_goes_on(study, capsys):
    search(study, task(), verdict_budget=30, progress=True)
    assert "records go on, over" in capsys.readouterr().err
    first = chosen_with()
    assert 20 < sum(first.values()) <= 30
    assert {*first.values()} <= {3, max(first.values())}
    held = Verdict.read(study.user_attrs[VERDICT])
    assert f"by the {max(first.values())} seeds that choose" in held.champion.why
    assert first["baseline"] == max(first.values())
    before = len(verdict_study().trials)
    search(study, task(), verdict_budget=30)
    assert len(verdict_study().trials) == before
    search(study, task(), verdict_budget=40)
    assert first <= chosen_with()
    assert 30 < chosen_with().total() <= 40
    assert Verdict.read(study.user_attrs[VERDICT]).before == 1
    assert not differences(verdict_study(), task(), store())


class Jumps(nn.Module):
    """Looks at its data, so that no export follows it."""

    def __init__(self):
        super().__init__()
        self.network = mlp()

    def forward(self, inputs):
        return self.network(inputs if inputs.sum() > 0 else inputs + 0.01)


def test_a_verdict_stands_whose_champion_cannot_be_exported(study, capsys):
    jumps = task(backbone=lambda tricks: Jumps())
    search(study, jumps, progress=True)
    assert "no champion was registered" in capsys.readouterr().err
    first, before = study.user_attrs[VERDICT], len(verdict_study().trials)
    assert report_of(study, jumps, Verdict.read(first)).html()
    search(study, jumps)
    assert study.user_attrs[VERDICT] == first  # the test split was looked at once
    assert len(verdict_study().trials) == before


def test_a_budget_that_leaves_nothing_says_so(study, capsys):
    search(study, task(), verdict_budget=5, progress=True)
    assert "5 trainings leave none for a second round, the first takes" in capsys.readouterr().err
    with pytest.raises(InputError, match="a verdict's budget wants a verdict"):
        search(study, task(), verdict_budget=5, finalists=0)


def test_a_baseline_that_is_alone_is_compared_with_nothing(study):
    search(study, task(), n_trials=1, finalists=1)
    assert "clearly better" not in Verdict.read(study.user_attrs[VERDICT]).champion.why


def test_less_is_better_where_the_task_says_so(study):
    minimal = create_study("loss", storage="optuna.journal", direction="minimize")
    chosen_task = task(name="loss", monitor="val/loss", mode="min")
    search(minimal, chosen_task)
    held = Verdict.read(minimal.user_attrs[VERDICT])
    best = min(held.rows[name].validation.mean for name in ("plain", "baseline", "champion"))
    assert held.rows["champion"].validation.mean <= best + 0.5
    assert held.rows["champion"].test is not None


def test_numbers_to_predict_have_an_ensemble_of_numbers(with_store):
    inputs = torch.randn(60, 4)
    data = InMemoryData.from_arrays(inputs, inputs.sum(1), regression=True, batch_size=16)
    regression = lightning_tricks.Task(
        "line", data, lambda tricks: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)),
        epochs=2, loss=F.mse_loss, metrics={}, monitor="val/loss", mode="min",
    )  # fmt: skip
    numbers = create_study("line", storage=None, direction="minimize")
    summary = search(numbers, regression)
    assert summary.header[-1] == "ensemble of 3"


def test_a_champion_of_a_verdict_stays_where_a_search_goes_on_without_one(study):
    search(study, task())
    before = study.user_attrs[CHAMPION]
    summary = search(study, task(), n_trials=5, finalists=0)
    assert "of the first 4 trials: 1 came after it" in summary.text()
    assert study.user_attrs[CHAMPION] == before
    assert "champion (trial" in " ".join(summary.header)


def test_check_and_repair_know_the_verdict(study, capsys):
    arguments = ["--n-trials", "3", "--finalists", "1", "--seeds", "3", "--workers", "inline"]
    assert tiny_study.main(tiny_study.task, arguments) == 0
    assert tiny_study.main(tiny_study.task, ["--check"]) == 0
    client = MlflowClient(store())
    experiment = client.get_experiment_by_name("tiny").experiment_id
    (parent,) = client.search_runs([experiment], "tags.`role` = 'verdict'")
    children = client.search_runs([experiment], f"tags.`{PARENT}` = '{parent.info.run_id}'")
    client.set_tag(children[0].info.run_id, "trial.state", "FAIL")
    assert tiny_study.main(tiny_study.task, ["--check"]) == 1
    assert "verdict: trial" in capsys.readouterr().out
    assert tiny_study.main(tiny_study.task, ["--check", "--repair"]) == 0
    assert tiny_study.main(tiny_study.task, ["--check"]) == 0


def test_a_verdict_whose_run_was_deleted_is_written_anew_with_its_models(study, capsys):
    arguments = ["--n-trials", "3", "--finalists", "1", "--seeds", "3", "--workers", "inline"]
    assert tiny_study.main(tiny_study.task, arguments) == 0
    client = MlflowClient(store())
    experiment = client.get_experiment_by_name("tiny").experiment_id
    (parent,) = client.search_runs([experiment], "tags.`role` = 'verdict'")
    before = verdict_study().trials
    client.delete_run(parent.info.run_id)
    assert tiny_study.main(tiny_study.task, ["--check"]) == 1
    assert tiny_study.main(tiny_study.task, ["--check", "--repair"]) == 0
    capsys.readouterr()
    assert tiny_study.main(tiny_study.task, ["--check"]) == 0, capsys.readouterr().out
    assert [trial.value for trial in verdict_study().trials] == [trial.value for trial in before]
    inputs, _ = tiny_study.task().example()
    with _tracking_uri(store()):
        for alias in ("champion", "ensemble"):
            model = mlflow.pytorch.load_model(f"models:/tiny@{alias}")
            assert model(inputs).shape == (len(inputs), 3)
    (registered,) = [
        version
        for version in client.search_model_versions("name='tiny'")
        if "champion" in client.get_model_version("tiny", version.version).aliases
    ]
    assert registered.run_id not in (None, parent.info.run_id)


@pytest.mark.parametrize(
    ("name", "value"), [("finalists", -1), ("seeds", 2), ("seeds", 3.5), ("verdict_budget", -1)]
)
def test_a_wrong_number_is_refused(study, name, value):
    with pytest.raises(InputError, match=name):
        search(study, task(), **{name: value})
    assert not study.trials
