"""Is the champion the one that the rules give, and are the intervals true?"""

import copy
import functools
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import calibration
import mlflow
import numpy as np
import optuna
import pytest
import pytorch_lightning as pl
import tiny_study
import torch
import torch.nn.functional as F
from conftest import mlp, optimize, samples, small_data
from mlflow.tracking import MlflowClient
from sklearn.metrics import f1_score
from test_study import store, task
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryRecall, MulticlassF1Score

import lightning_tricks
from lightning_tricks import (
    InputError,
    ModuleTricks,
    Space,
    Task,
    Tricks,
    create_study,
    load_with_tricks,
    recipe_of_champion,
)
from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.module.ensemble import Ensemble
from lightning_tricks.report.summary import summarize_verdict
from lightning_tricks.search.keys import CHAMPION, ENTRY, PHASE, SEED, SEED_INDEX, VERDICT, kept
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.selection.intervals import Interval, mean_interval
from lightning_tricks.selection.result import Gain, Row, Verdict
from lightning_tricks.selection.terms import Terms
from lightning_tricks.tracking.agreement import differences
from lightning_tricks.tracking.holdings import NUMBER, PARENT
from lightning_tricks.verdict import evaluation
from lightning_tricks.verdict.batch_scores import batch_scores
from lightning_tricks.verdict.reporting import report_of


def verdict(label="Not confirmed", gain=None, **changed):
    """Return a verdict about trial 7."""
    gain = gain or Gain(Interval(0.004, -0.002, 0.01), "test/accuracy", 8, 1800, chose=False, more=14)
    given = {
        "label": label,
        "champion": "trial 7" if label == "Confirmed gain" else "baseline",
        "trial": 7 if label == "Confirmed gain" else 0,
        "candidate": "trial 7",
        "candidate_trial": 7,
        "gain": gain,
        "ensemble_gain": None,
        "margin": 0.002,
        "why": "",
        "names": ("trial 7", "baseline"),
        "terms": Terms(),
        "budget": 40,
        "rows": {"baseline": Row(mean_interval([0.9, 0.8]), None)},
    }
    return Verdict(**{**given, **changed})


def test_a_verdict_is_kept_as_plain_data_and_read_again():
    held = verdict()
    assert Verdict.read(json.loads(json.dumps(held.plain()))) == held
    with pytest.raises(InputError, match="verdict"):
        Verdict.read({**held.plain(), "label": "Great"})


def test_the_first_words_say_what_to_do():
    gain = "+0.0040 ± 0.0060 test/accuracy over the baseline, with trial 7"
    found = verdict("Confirmed gain")
    assert found.headline() == f"Confirmed gain: {gain}. Use trial 7."
    assert found.changer == "trial 7"
    possible = verdict("Not confirmed")
    assert possible.headline() == f"Not confirmed: {gain}. Keep the baseline."
    assert possible.changer == "trial 7"
    assert "rules out a gain above 0.0100." in possible.method
    assert (
        "About 14 more seeds would tell: verdict_budget=68, or --verdict-budget 68." in possible.method
    )
    nothing = verdict("No gain found")
    assert nothing.headline() == f"No gain found: {gain}, the best other recipe. Keep the baseline."
    assert "--verdict-budget" not in nothing.method
    hopeless = Gain(Interval(0.004, -0.002, 0.01), "test/accuracy", 8, 60, chose=False)
    assert "Seeds alone will not tell" in verdict("Not confirmed", hopeless).method
    alone = verdict("No gain found", candidate=None, why="No other recipe was trained to its end.")
    assert alone.headline() == (
        "No gain found: keep the baseline. No other recipe was trained to its end."
    )
    assert "looked at these samples once" in verdict(before=1).method
    narrow = Gain(Interval(0.001, -0.0005, 0.0025), "test/accuracy", 8, 60, chose=False, more=3)
    asked = verdict("Not confirmed", narrow, terms=Terms(margin=0.002))
    assert "as narrow as --margin asks for" in asked.method


def test_recipes_that_did_better_but_were_dropped_are_named():
    rows = {
        "trial 7": Row(mean_interval([0.9, 0.9]), mean_interval([0.7, 0.7])),
        "plain": Row(mean_interval([0.8, 0.8]), mean_interval([0.8, 0.8])),
        "baseline": Row(mean_interval([0.9, 0.9]), mean_interval([0.9, 0.9])),
        "trial 7 ensemble": Row(None, mean_interval([0.95, 0.95])),
    }
    found = verdict("Confirmed gain", champion="trial 7", rows=rows)
    (line,) = found.dropped_but_higher("max")
    assert line.startswith("plain did better in this table than trial 7, but was not compared")
    assert found.dropped_but_higher("min") == []


def test_blocks_of_a_mean_are_their_means_and_average_to_the_metric():
    """Also if the number of samples is not a multiple of the number of blocks."""
    generator = torch.Generator().manual_seed(0)
    for count in (40, 100, 250, 360):
        outputs = torch.randn(count, 3, generator=generator)
        targets = torch.randint(3, (count,), generator=generator)
        found = evaluation.blocks(F.cross_entropy, outputs, targets)
        assert len(found) == min(count, evaluation.BLOCKS)
        assert found.mean() == pytest.approx(float(F.cross_entropy(outputs, targets)), rel=1e-5)
        each = F.cross_entropy(outputs, targets, reduction="none").numpy()
        means = [each[np.arange(count) % len(found) == at].mean() for at in range(len(found))]
        if count % len(found) == 0:
            assert found == pytest.approx(np.array(means), rel=1e-3, abs=1e-4)


def test_blocks_follow_the_numbers_of_the_samples_and_not_their_order():
    outputs, targets = torch.randn(60, 3), torch.arange(60) % 3
    order = torch.randperm(60)
    found = evaluation.blocks(F.cross_entropy, outputs, targets)
    shuffled = evaluation.blocks(F.cross_entropy, outputs[order], targets[order], order)
    assert shuffled == pytest.approx(found, rel=1e-3, abs=1e-4)


def test_a_metric_that_is_no_mean_has_blocks_too():
    outputs, targets = torch.randn(300, 3), torch.randint(3, (300,))
    measure = MulticlassF1Score(3, average="macro")
    found = evaluation.blocks(measure, outputs, targets)
    expected = f1_score(targets, outputs.argmax(1), average="macro")
    assert found.mean() == pytest.approx(expected, abs=1e-5)
    assert found.std() > 0.01

    def fails_on_a_part(outputs, targets):
        return torch.tensor(1.0 if len(targets) == 300 else float("nan"))

    assert evaluation.blocks(fails_on_a_part, outputs, targets).tolist() == [1.0]


def test_an_ensemble_averages_probabilities_or_numbers():
    members = [nn.Linear(4, 3) for _ in range(3)]
    inputs = torch.randn(5, 4)
    mean = torch.stack([member(inputs).softmax(1) for member in members]).mean(0)
    torch.testing.assert_close(Ensemble(members, probabilities=True)(inputs).exp(), mean)
    mean = torch.stack([member(inputs) for member in members]).mean(0)
    torch.testing.assert_close(Ensemble(members, probabilities=False)(inputs), mean)
    # Classes of pixels: as for `cross_entropy`, they are the second dimension.
    images, pixels = torch.randn(5, 2, 6, 6), [nn.Conv2d(2, 3, 1) for _ in range(2)]
    mean = torch.stack([member(images).softmax(1) for member in pixels]).mean(0)
    torch.testing.assert_close(Ensemble(pixels, probabilities=True)(images).exp(), mean)


class Pair(nn.Module):
    """Returns features in addition to its logits."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, inputs):
        features = self.body(inputs).relu()
        return self.head(features), features


def test_a_network_that_returns_a_tuple_is_scored_by_its_first_output():
    network, batch = Pair(), torch.randn(4, 6)
    outputs, _ = evaluation.answers(network, [(batch, torch.zeros(4))] * 2)
    torch.testing.assert_close(outputs, network.head(network.body(batch).relu()).repeat(2, 1))


def test_outputs_of_different_shapes_are_not_compared_by_sample():
    batches = [(torch.randn(4, steps, 6), torch.zeros(4)) for steps in (2, 3)]
    with pytest.raises(evaluation.UnlikeOutputs):
        evaluation.answers(nn.Linear(6, 3), batches)


@pytest.mark.slow
@pytest.mark.parametrize("unseen", [True, False])
@pytest.mark.parametrize("size", [0.0, 0.5])
def test_a_verdict_is_true_of_tasks_whose_truth_is_known(size, unseen):
    """A short run of `benchmarks/calibration.py`; the bounds allow for 40 draws at the nominal rates."""
    found = calibration.repeat(40, size, unseen=unseen)
    assert found["held"].sum() >= 34
    assert found["wrong"].sum() <= 4
    assert found["worse"].sum() <= 3
    assert found["gain"].mean() >= (1 if size else 0)
    assert found["together"].sum() >= 34
    if not size:
        assert found["effective"].sum() <= 6


# Whole studies.

search = functools.partial(optimize, n_trials=4, finalists=2, seeds=3, progress=False, workers="inline")


@pytest.fixture
def study(with_store):
    return create_study("tiny", storage="optuna.journal")


def verdict_study():
    return optuna.load_study(study_name="tiny.verdict", storage=create_study("tiny")._storage)


def listed_models(client, run):
    """Return the registered models that MLflow lists on a run's page, with their versions."""
    shown = [client.get_logged_model(output.model_id) for output in run.outputs.model_outputs]
    listed = [json.loads(model.tags["mlflow.modelVersions"]) for model in shown]
    return {(one["name"], one["version"]) for versions in listed for one in versions}


def test_a_recipe_that_never_finished_has_a_row(study):
    held = verdict(rows={"plain": Row(None, None), "baseline": Row(mean_interval([0.9, 0.8]), None)})
    assert summarize_verdict(study, tiny_study.task(), held).rows[0] == ["plain", "did not finish"]


def test_a_study_with_a_verdict(study):
    summary = search(study, task())
    own = verdict_study()
    held = Verdict.read(study.user_attrs[kept(VERDICT)])
    assert summary.verdict == held
    names = ["plain", "baseline", *({held.candidate} - {"plain"})]
    shown_names = [row[0] for row in summary.rows]
    assert shown_names == [f"{n} (champion)" if n == held.champion else n for n in names]
    shown = summary.text().replace("\n", " ")
    assert shown.startswith(f"{held.label}: ")
    assert dict(zip(shown_names, summary.rows, strict=True))["plain"][1:] == [
        str(held.rows["plain"].validation),
        str(held.rows["plain"].test),
    ]
    assert "Ensembles of 3 models, test/accuracy: baseline " in shown
    assert f", {held.candidate} " in shown.partition("Ensembles")[2]
    both = [held.rows[f"{name} ensemble"].test.mean for name in (held.candidate, "baseline")]
    assert held.ensemble_gain.mean == pytest.approx(both[0] - both[1])
    assert f"gain {held.ensemble_gain} over samples" in shown
    assert max(map(len, summary.text(80).splitlines())) <= 100

    # The trials are paired by seed; the seeds that choose differ from the seeds that report.
    by_phase: dict[str, dict[int, set[int]]] = {}
    for trial in own.trials:
        attrs = trial.user_attrs
        by_phase.setdefault(attrs[PHASE], {}).setdefault(attrs[SEED_INDEX], set()).add(attrs[SEED])
        assert Outcome.read(trial).seed == attrs[SEED]
    assert all(len(seeds) == 1 for phase in by_phase.values() for seeds in phase.values())
    seeds = {phase: set.union(*draws.values()) for phase, draws in by_phase.items()}
    assert len(seeds["selection"]) >= 1
    assert len(seeds["report"]) == held.gain.seeds == 3
    assert not seeds["selection"] & seeds["report"]

    # Each row is the mean over the seeds of the report only.
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

    # MLflow: both studies have their parents, champion and ensemble are registered, both stores agree.
    client = MlflowClient(store())
    experiment = client.get_experiment_by_name("tiny").experiment_id
    runs = client.search_runs([experiment], max_results=1000)
    parents = {run.data.tags[PARENT] for run in runs if NUMBER in run.data.tags}
    names = {run.info.run_id: run.info.run_name for run in runs}
    assert sorted(names[parent] for parent in parents) == ["tiny", "verdict"]
    tags = [run.data.tags.get("verdict") for run in runs if run.info.run_id in parents]
    (parent,) = [run for run in runs if run.info.run_id in parents and run.info.run_name == "tiny"]
    versions = {str(v.version) for v in client.search_model_versions("name='tiny'")}
    assert listed_models(client, parent) == {("tiny", version) for version in versions}
    assert tags == [held.label] * 2
    ranked = [run for run in runs if "ranking" in run.data.metrics]
    assert {names[run.data.tags[PARENT]] for run in ranked} == {"tiny"}
    assert not differences(study, task(), store())
    assert not differences(own, task(), store())
    inputs, _ = task().example()
    mlflow.set_tracking_uri(store())
    champion = mlflow.pytorch.load_model("models:/tiny@champion")
    ensemble = mlflow.pytorch.load_model("models:/tiny@ensemble")
    assert champion(inputs).shape == ensemble(inputs).shape == (len(inputs), 3)
    torch.testing.assert_close(ensemble(inputs).exp().sum(1), torch.ones(len(inputs)))


class Counted(InMemoryData):
    """Counts how often the test split is read."""

    looks = 0

    def test_dataloader(self):
        type(self).looks += 1
        return super().test_dataloader()


@pytest.mark.usefixtures("without_mlflow")
def test_the_test_split_is_looked_at_by_one_verdict_and_a_later_one_says_so(study):
    splits = small_data().splits
    data = Counted(splits["train"], splits["validation"], splits["test"], batch_size=8)
    first = search(study, task(data=data))
    looks, trials = Counted.looks, len(verdict_study().trials)
    again = search(study, task(data=data))
    assert (Counted.looks, len(verdict_study().trials)) == (looks, trials)
    assert again.rows == first.rows
    assert "Earlier verdicts" not in again.text()
    later = search(study, task(data=data), n_trials=8, finalists=3)
    assert "Earlier verdicts looked at these samples once" in later.text().replace("\n", " ")


@pytest.mark.usefixtures("without_mlflow")
def test_a_verdict_that_is_interrupted_goes_on_to_the_same_end(study):
    whole = search(study, task(), checkpoints="whole")
    expected = Verdict.read(study.user_attrs[kept(VERDICT)])
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
    held = Verdict.read(create_study("tiny").user_attrs[kept(VERDICT)])
    assert held.rows == expected.rows
    assert held.champion == expected.champion


def chosen_with():
    """Return, for each recipe, the number of seeds that chose."""
    trials = verdict_study().trials
    names = [t.user_attrs[ENTRY] for t in trials if t.user_attrs[PHASE] == "selection"]
    return Counter(names)


def reported_with():
    """Return, for each recipe, the number of seeds that compared."""
    trials = verdict_study().trials
    return Counter(t.user_attrs[ENTRY] for t in trials if t.user_attrs[PHASE] == "report")


def test_a_larger_budget_goes_on_with_the_same_candidate_over_more_seeds(study, capsys):
    first = search(study, task(), margin=1e-9, progress=True).verdict
    (most,) = re.findall(r"verdict: at most (\d+) trainings", capsys.readouterr().err)
    most = int(most) - 3 * (first.candidate == "plain")  # which is then not trained to be shown
    assert len(verdict_study().trials) == most  # such a small margin uses all of them
    chosen = chosen_with()
    assert first.spent == most
    # A budget that was spent already is answered already: no look at the test split, no training.
    assert search(study, task(), margin=1e-9, verdict_budget=2).verdict == first
    assert len(verdict_study().trials) == most
    assert reported_with()[first.candidate] == reported_with()["baseline"] == 3
    later = search(study, task(), verdict_budget=30).verdict
    assert (later.candidate, later.before) == (first.candidate, 1)
    assert chosen_with() == chosen  # only the comparison has more seeds
    assert reported_with()["baseline"] == later.gain.seeds > 10
    assert verdict_study().trials[-1].number < 30
    before = len(verdict_study().trials)
    search(study, task(), verdict_budget=30)
    assert len(verdict_study().trials) == before
    assert not differences(verdict_study(), task(), store())


@pytest.mark.usefixtures("without_mlflow")
def test_seeds_end_once_the_interval_is_narrower_than_the_margin(study):
    held = search(study, task(), margin=50.0, verdict_budget=40).verdict
    assert held.margin == 50.0
    assert held.gain.seeds == 3
    assert reported_with()["baseline"] == 3


def slow_baseline(**changed):
    """Return a task whose baseline learns nothing, unlike any other recipe."""
    still = Tricks(optimizer={"kind": "sgd", "lr": 1e-9})
    inputs = torch.randn(600, 6, generator=torch.Generator().manual_seed(0))
    data = InMemoryData.from_arrays(inputs, (inputs[:, 0] > 0).long(), batch_size=60)
    network = functools.partial(mlp, classes=2)
    return task(data=data, backbone=lambda tricks: network(), baseline=still, epochs=4, **changed)


def test_a_confirmed_gain_makes_a_champion(study):
    held = search(study, slow_baseline(), n_trials=6, verdict_budget=24).verdict
    assert held.label == "Confirmed gain"
    assert held.champion == held.candidate != "baseline"
    assert held.gain.interval.low > 0
    # Compared on the test split, and on validation samples that chose nothing.
    assert held.gain.metric == "accuracy"
    assert 120 < held.gain.samples <= 120 + 240
    assert not held.gain.chose
    recipe = Outcome.read(study.trials[held.trial]).recipe
    assert recipe_of_champion("tiny", store()).model_dump() == recipe
    assert study.user_attrs[CHAMPION]["trial"] == held.trial


def test_without_a_confirmed_gain_the_baseline_is_the_champion(study):
    """The data are noise: nothing can be learned, so there is no gain."""
    inputs = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    noise = InMemoryData.from_arrays(inputs, torch.arange(200) % 3, batch_size=16)
    held = search(study, task(data=noise)).verdict
    assert held.label != "Confirmed gain"
    assert (held.champion, held.trial) == ("baseline", 0)
    assert recipe_of_champion("tiny", store()) == Tricks()
    run = MlflowClient(store()).get_model_version_by_alias("tiny", "champion").run_id
    assert (
        MlflowClient(store()).get_run(run).data.tags["role"].startswith("baseline · comparison, seed ")
    )
    assert held.rival == held.candidate_trial is not None
    roles = {t.number: run_role(t.number) for t in study.trials}
    assert roles[0] == "champion · baseline"
    assert "candidate" in roles[held.rival]


def run_role(number):
    """Return a search trial's role in MLflow."""
    client = MlflowClient(store())
    experiment = client.get_experiment_by_name("tiny").experiment_id
    runs = client.search_runs([experiment], f"tags.`{NUMBER}` = '{number}'")
    parents = {client.get_run(run.data.tags[PARENT]).info.run_name: run for run in runs}
    return parents["tiny"].data.tags["role"]


@pytest.mark.usefixtures("without_mlflow")
def test_validation_samples_of_the_comparison_chose_nothing(study):
    """The search, its repeats and the choice of the candidate never validated on them."""
    chosen_task = slow_baseline()
    search(study, chosen_task)
    data = chosen_task.data
    size = len(data.splits["validation"].targets)
    chose = set(range(len(data.splits["train"].targets), len(data.splits["train"].targets) + size))
    for number in (2, 4):  # seeds of the repeats
        chose |= set(data.split_anew(number).validation_samples.tolist())
    compared: set[int] = set()
    for trial in verdict_study().trials:
        split = data.split_anew(trial.user_attrs[SEED])
        assert len(split.splits["validation"].targets) == size
        own = set(split.validation_samples.tolist())
        if trial.user_attrs[PHASE] == "report":
            compared |= own
        else:
            chose |= own
    assert compared
    assert not compared & chose


@pytest.mark.usefixtures("without_mlflow")
def test_a_simpler_recipe_is_taken_only_if_it_is_asked_for_and_within_the_margin(study):
    given = {"verdict_budget": 20, "seeds": 3, "n_trials": 4, "finalists": 3}
    assert search(study, task(), **given).verdict.champion == "baseline"
    wide = search(study, task(), margin=1.0, prefer_simple=True, **given).verdict
    assert "is simpler than" in wide.why
    assert wide.champion not in ("baseline",)
    again = search(study, task(), margin=1.0, prefer_simple=True, **given)
    assert f"{wide.champion} (champion)" in [row[0] for row in again.rows]
    assert f"Use {wide.champion}. " in again.answer
    narrow = search(study, task(), margin=1e-9, prefer_simple=True, **given).verdict
    assert narrow.why == ""


@pytest.mark.usefixtures("without_mlflow")
def test_recipes_are_compared_where_they_chose_if_there_is_nothing_else(study):
    splits = small_data().splits
    data = InMemoryData(splits["train"], splits["validation"], batch_size=8)
    held = search(study, task(data=data)).verdict
    assert held.gain.metric == "val/accuracy"
    assert held.gain.chose
    assert held.gain.samples == len(splits["validation"].targets)
    assert "These samples chose the recipe, too" in held.method
    assert all(row.test is None for row in held.rows.values())


class NoTest(InMemoryData):
    """A data module with an unreadable test split."""

    def test_dataloader(self):
        raise OSError("a corrupt\nsample")


@pytest.mark.usefixtures("without_mlflow")
def test_a_test_split_that_fails_costs_the_test_scores_and_not_the_verdict(study, capsys):
    splits = small_data().splits
    data = NoTest(splits["train"], splits["validation"], splits["test"], batch_size=8)
    held = search(study, task(data=data), progress=True).verdict
    assert "the test split is left out: OSError: a corrupt sample" in capsys.readouterr().err
    assert held.gain is not None
    assert all(row.test is None for row in held.rows.values())
    alone = create_study("tiny", storage=None)
    assert search(alone, task(data=data), n_trials=1, checkpoints="alone").verdict.candidate is None


class Fragile(nn.Module):
    """A network that fails in its tenth training step if told to."""

    def __init__(self, fails):
        super().__init__()
        self.network, self.fails, self.passes = mlp(classes=2), fails, 0

    def forward(self, inputs):
        self.passes += self.training
        if self.fails and self.passes >= 10:
            raise RuntimeError("bad luck")
        return self.network(inputs)


def fragile(fails):
    """Return a task with some failing trainings: a function of the recipe and the seed decides."""

    def backbone(tricks):
        return Fragile(fails(tricks == known, torch.initial_seed()))

    steady = slow_baseline()
    known = Space(Tricks).nearest(steady.baseline)
    return replace(steady, backbone=backbone)


def test_a_baseline_that_never_trains_is_replaced_and_the_verdict_says_why(study):
    held = search(study, fragile(lambda baseline, seed: baseline), n_trials=6).verdict
    assert study.trials[0].state.name == "FAIL"
    assert held.label == "Confirmed gain"
    assert held.champion == held.candidate != "baseline"
    assert held.gain is None
    assert "The baseline was trained to its end with none of 3 seeds" in held.headline()
    recipe = Outcome.read(study.trials[held.trial]).recipe
    assert recipe_of_champion("tiny", store()).model_dump() == recipe


@pytest.mark.usefixtures("without_mlflow")
def test_a_candidate_that_fails_with_some_seed_is_no_champion(study):
    """Seeds that compare are odd, so a candidate chosen by even seeds fails only there."""
    unlucky = fragile(lambda baseline, seed: not baseline and seed % 4 == 1)
    held = search(study, unlucky, n_trials=3, verdict_budget=20).verdict
    assert (held.label, held.champion, held.gain) == ("No gain found", "baseline", None)
    assert f"{held.candidate} was trained to its end with" in held.headline()


class Lit(pl.LightningModule):
    """A module with its own steps, dict batches and its own metrics."""

    def __init__(self):
        super().__init__()
        self.network = mlp(classes=2)

    def forward(self, inputs):
        return self.network(inputs)

    def _step(self, batch, split):
        outputs = self(batch["x"])
        loss = F.cross_entropy(outputs, batch["y"])
        self.log_dict(
            {f"{split}_loss": loss, f"{split}_acc": (outputs.argmax(1) == batch["y"]).float().mean()}
        )
        return loss

    def training_step(self, batch, number):
        return self._step(batch, "train")

    def validation_step(self, batch, number):
        self._step(batch, "val")

    def test_step(self, batch, number):
        self._step(batch, "test")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


class Rows(torch.utils.data.Dataset):
    def __init__(self, count, seed):
        self.inputs = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, at):
        return {"x": self.inputs[at], "y": int(self.inputs[at, 0] > 0)}


def lit(*splits, **loader):
    loaders = [
        DataLoader(Rows(n, n), batch_size=16, **(loader if at else {})) for at, n in enumerate(splits)
    ]
    return Task(
        "tiny", tuple(loaders), lambda tricks: Lit(), tricks=ModuleTricks, epochs=2, monitor="val_acc"
    )


@pytest.mark.usefixtures("without_mlflow")
def test_a_module_with_steps_of_its_own_is_compared_batch_by_batch(study):
    few = {"n_trials": 2, "finalists": 1}
    held = search(study, lit(160, 150, 150), **few).verdict
    assert held.gain.metric == "test_acc"
    assert (held.gain.samples, held.gain.chose) == (150, False)
    study = create_study("tiny", storage=None)
    held = search(study, lit(160, 150), checkpoints="b", **few).verdict
    assert held.gain.metric == "val_acc"
    assert (held.gain.samples, held.gain.chose) == (150, True)
    study = create_study("tiny", storage=None)
    held = search(study, lit(160, 150, 60), checkpoints="c", **few).verdict  # four batches
    assert held.gain.samples is None
    assert "the interval is over seeds only" in held.method


def test_the_scores_of_batches_average_to_the_score_and_shuffling_changes_nothing():
    module, its_task = Lit(), lit(160, 150, 150)
    found = batch_scores(its_task, module, "test", "test_acc")
    assert len(found.scores) == 10
    rows = Rows(150, 150)
    right = (module(rows.inputs).argmax(1) == (rows.inputs[:, 0] > 0).long()).double()
    assert found.scores.mean() == pytest.approx(float(right.mean()))
    assert found.scores[0] == pytest.approx(float(right[:16].mean()), abs=0.01)
    assert "log" not in vars(module)
    shuffled = lit(160, 150, 150, shuffle=True)
    one, other = (batch_scores(shuffled, module, "test", "test_acc") for _ in range(2))
    assert torch.equal(one.marks, other.marks)
    assert not torch.equal(one.marks, found.marks)
    assert batch_scores(its_task, module, "test", "test_f1") is None


class LitMetrics(Lit):
    """Logs metrics of torchmetrics, as objects."""

    def __init__(self, how):
        super().__init__()
        self.how, self.acc = how, BinaryAccuracy()
        self.some = MetricCollection({"test_acc": BinaryAccuracy(), "test_recall": BinaryRecall()})
        self.rank = BinaryAUROC()

    def test_step(self, batch, number):
        scores = self(batch["x"]).diff()[:, 0].sigmoid()
        if self.how == "collection":
            self.some.update(scores, batch["y"])
            self.log_dict(self.some)
            return
        metric = self.rank if self.how == "rank" else self.acc
        metric(scores, batch["y"]) if self.how == "forward" else metric.update(scores, batch["y"])
        self.log("test_acc", metric, on_step=False, on_epoch=True)


@pytest.mark.parametrize("how", ["update", "forward", "collection"])
def test_a_metric_that_is_logged_as_an_object_has_a_score_in_each_batch(how):
    module, its_task = LitMetrics(how), lit(160, 150, 150)
    found = batch_scores(its_task, module, "test", "test_acc")
    rows = Rows(150, 150)
    right = (module(rows.inputs).argmax(1) == (rows.inputs[:, 0] > 0).long()).double()
    assert found.scores.mean() == pytest.approx(float(right.mean()))
    assert found.scores[3] - found.scores[4] == pytest.approx(
        float(right[48:64].mean() - right[64:80].mean())
    )
    again = batch_scores(its_task, module, "test", "test_acc")  # the metric is as it was
    assert again.scores == pytest.approx(found.scores)


def test_a_metric_that_is_no_mean_over_batches_has_no_scores_of_batches():
    module, shifted = LitMetrics("rank"), lit(160, 150, 300)
    rows = shifted.data.test_dataloader().dataset
    rows.inputs = rows.inputs[rows.inputs[:, 0].argsort()]  # most batches are of one class
    assert batch_scores(shifted, module, "test", "test_acc") is None


class LitInTraining(Lit):
    """Can be validated in training only."""

    def validation_step(self, batch, number):
        self.log("lr", self.optimizers().param_groups[0]["lr"])
        super().validation_step(batch, number)


class Swapping(pl.Callback):
    """Validates other weights than it leaves in the module, as an average by hand does."""

    def on_validation_start(self, trainer, module):
        self.kept = copy.deepcopy(module.network.state_dict())
        for parameter in module.network.parameters():
            parameter.data.neg_()

    def on_validation_end(self, trainer, module):
        module.network.load_state_dict(self.kept)


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.parametrize(
    "options", [{"backbone": lambda tricks: LitInTraining()}, {"callbacks": [Swapping()]}]
)
def test_a_module_that_scores_differently_alone_has_the_score_of_its_training(study, options, capsys):
    summary = search(study, replace(lit(160, 150), **options), progress=True)
    assert summary.verdict.gain.samples is None
    own, other = (
        summary.verdict.rows[name].validation.mean
        for name in (summary.verdict.incumbent, summary.verdict.candidate)
    )
    assert summary.verdict.gain.interval.mean == pytest.approx(other - own)
    assert capsys.readouterr().err.count("no score of val_acc by batch") == 1


class Jumps(nn.Module):
    """Branches on its data, so that it cannot be exported."""

    def __init__(self):
        super().__init__()
        self.network = mlp()

    def forward(self, inputs):
        return self.network(inputs if inputs.sum() > 0 else inputs + 0.01)


def test_a_champion_that_cannot_be_exported_is_registered_and_comes_back(study, capsys):
    jumps = task(backbone=lambda tricks: Jumps())
    search(study, jumps, progress=True)
    assert "warning" not in capsys.readouterr().err
    back = load_with_tricks("models:/tiny@champion", Jumps(), tracking_uri=store()).eval()
    ensemble = load_with_tricks("models:/tiny@ensemble", Jumps(), member=1, tracking_uri=store())
    inputs = samples(4, 6)[0]
    assert back(inputs).shape == ensemble.eval()(inputs).shape == (4, 3)
    first, before = study.user_attrs[kept(VERDICT)], len(verdict_study().trials)
    assert report_of(study, jumps, Verdict.read(first)).html()
    search(study, jumps)
    assert study.user_attrs[kept(VERDICT)] == first  # the test split was read once
    assert len(verdict_study().trials) == before


@pytest.mark.usefixtures("without_mlflow")
def test_a_baseline_that_is_alone_is_compared_with_nothing(study):
    held = search(study, task(), n_trials=1, finalists=1).verdict
    assert (held.label, held.champion, held.candidate) == ("No gain found", "baseline", None)
    assert "No other recipe was trained to its end" in held.headline()
    assert study.user_attrs[CHAMPION]["trial"] == 0


@pytest.mark.usefixtures("without_mlflow")
def test_less_is_better_where_the_task_says_so(study):
    minimal = create_study("loss", storage="optuna.journal", direction="minimize")
    chosen_task = task(name="loss", monitor="val/loss", mode="min")
    search(minimal, chosen_task)
    held = Verdict.read(minimal.user_attrs[kept(VERDICT)])
    worse, better = (held.rows[name].test.mean for name in ("baseline", held.candidate))
    assert held.gain.interval.mean == pytest.approx(worse - better)
    assert held.gain.metric == "test/loss"


@pytest.mark.usefixtures("without_mlflow")
def test_numbers_to_predict_have_an_ensemble_of_numbers(with_store):
    inputs = torch.randn(60, 4)
    data = InMemoryData.from_arrays(inputs, inputs.sum(1), regression=True, batch_size=16)
    regression = lightning_tricks.Task(
        "line", data, lambda tricks: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)),
        epochs=2, loss=F.mse_loss, metrics={}, monitor="val/loss", mode="min",
    )  # fmt: skip
    numbers = create_study("line", storage=None, direction="minimize")
    summary = search(numbers, regression)
    assert "Ensembles of 3 models, test/loss: baseline " in summary.text()


@pytest.mark.usefixtures("without_mlflow")
def test_a_champion_of_a_verdict_stays_where_a_search_goes_on_without_one(study):
    search(study, task())
    before = study.user_attrs[CHAMPION]
    summary = search(study, task(), n_trials=5, finalists=0)
    assert "of the first 4 trials: 1 came after it" in summary.text()
    assert study.user_attrs[CHAMPION] == before
    assert any("(champion)" in row[0] for row in summary.rows)


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.parametrize(
    ("name", "value"), [("finalists", -1), ("seeds", 2), ("verdict_budget", -1), ("margin", -0.1)]
)
def test_a_wrong_number_is_refused(study, name, value):
    with pytest.raises(InputError, match=name):
        search(study, task(), **{name: value})
    assert not study.trials
