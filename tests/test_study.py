"""The coordinator, with real storages, a real MLflow store and real processes."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import mlflow
import numpy as np
import optuna
import pytest
import tiny_study
import torch
import troubled
from conftest import Demanding, mlp, optimize, small_data, variant
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState
from programs import end_of, start, wait_for
from torch import nn

from lightning_tricks import ConvNet, InputError, Space, Task, Tricks, create_study, load_with_tricks
from lightning_tricks.scores import rank_of
from lightning_tricks.search.outcomes import Outcome, is_repeat
from lightning_tricks.search.promotion import is_paused
from lightning_tricks.search.pruners import warmup_epochs
from lightning_tricks.search.sampling.samplers import SAMPLERS
from lightning_tricks.study.coordinator import MOST_REPEATS
from lightning_tricks.tracking.agreement import differences
from lightning_tricks.training import runner

STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}


def task(**changes):
    return Task(
        **{
            "name": "tiny",
            "data": small_data(),
            "backbone": lambda tricks: mlp(),
            "epochs": 3,
            **changes,
        }
    )


pytestmark = pytest.mark.usefixtures("with_store")


def run(*arguments):
    """Run the study in this process, like its command."""
    return tiny_study.main(tiny_study.task, [*arguments])


def load(name="tiny"):
    return create_study(name)


def values(study):
    return [(t.number, t.state.name, t.params, t.value) for t in study.trials]


def store(name="mlflow.db"):
    return f"sqlite:///{Path(name).absolute()}"


def children(uri=None, name="tiny"):
    client = MlflowClient(uri or store())
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    nested = {int(r.data.tags["trial.number"]): r for r in runs if r not in parents}
    assert len(nested) == len(runs) - len(parents)
    return parents, nested


def assert_agreement(study, uri=None):
    """Optuna and MLflow hold the same trials, states, values and parameters."""
    parents, nested = children(uri, study.study_name)
    assert len(parents) == 1
    assert set(nested) == {t.number for t in study.trials}
    for trial in study.trials:
        run, outcome = nested[trial.number], Outcome.read(trial)
        assert run.info.status == STATUS[trial.state.name]
        assert run.data.tags["trial.state"] == trial.state.name
        recipe = Tricks.parse(outcome.recipe)
        assert run.data.params["optimizer"] == recipe.optimizer.kind
        assert float(run.data.params["optimizer.lr"]) == pytest.approx(recipe.optimizer.lr, rel=1e-4)
        if trial.value is not None:
            assert run.data.metrics["objective"] == pytest.approx(trial.value, rel=1e-4)
        if outcome.epochs:
            history = MlflowClient(uri or store()).get_metric_history(run.info.run_id, "val/loss")
            assert [m.step for m in history] == [e["number"] for e in outcome.epochs]


def test_the_first_two_trials_are_the_baseline_and_plain():
    study = create_study("tiny", storage=None)
    optimize(study, task(), n_trials=3, progress=False)
    recipes = [Tricks.parse(Outcome.read(t).recipe) for t in study.trials]
    assert recipes[0] == Tricks()
    assert recipes[1] == Tricks.plain()
    assert len(study.trials) == 3
    assert_agreement(study)


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.parametrize("sampler", [optuna.samplers.RandomSampler(0), optuna.samplers.TPESampler()])
@pytest.mark.parametrize("pruner", [optuna.pruners.NopPruner(), optuna.pruners.HyperbandPruner()])
def test_any_study_of_optuna_will_do(sampler, pruner):
    study = optuna.create_study(direction="minimize", sampler=sampler, pruner=pruner)
    summary = optimize(study, task(monitor="val/loss", mode="min"), n_trials=4, progress=False)
    assert len(study.trials) == 4
    assert "val/loss" in summary.text()


@pytest.mark.usefixtures("without_mlflow")
def test_a_repeat_does_not_use_up_a_trial():
    space = Space(Tricks).pin(
        {
            stage: getattr(Tricks(), stage)
            for stage in Tricks.model_fields
            if stage not in ("scaling", "initialization")
        }
    )
    study = create_study("tiny", storage=None, pruner="none")
    summary = optimize(study, task(), n_trials=9, space=space, progress=False)
    own = [trial for trial in study.trials if not is_repeat(trial)]
    assert len(own) == 9 < len(study.trials)
    assert f"9 trials: 9 complete; {len(study.trials) - 9} more repeated a recipe" in summary.text()


def test_a_repeated_recipe_is_not_trained_again(monkeypatch, capsys):
    trained = []
    original = runner.fit
    monkeypatch.setattr(runner, "fit", lambda one: trained.append(one.tricks) or original(one))
    space = Space(Tricks).pin(
        {stage: getattr(Tricks(), stage) for stage in Tricks.model_fields if stage != "scaling"}
    )
    study = create_study("tiny", storage=None, pruner="none")
    optimize(study, task(), n_trials=8, space=space)
    assert len(trained) == len({t.model_dump_json() for t in trained}) <= 4
    repeats = [trial for trial in study.trials if is_repeat(trial)]
    assert len(study.trials) == len(trained) + len(repeats)
    assert len(repeats) >= MOST_REPEATS  # nothing else was left to try
    assert "no more to propose that was not tried" in capsys.readouterr().err
    first = {}
    for trial in study.trials:
        key = trial.params["scaling"]
        assert trial.value == first.setdefault(key, trial.value)
    assert_agreement(study)
    assert differences(study, task(), "sqlite:///mlflow.db") == []


def test_the_same_command_again_goes_on_to_the_number_and_says_so(capsys):
    assert run("--n-trials", "3") == 0
    before = values(load())
    assert run("--n-trials", "5") == 0
    assert "continuing: 3 of 5 trials are already finished" in capsys.readouterr().err
    assert values(load())[:3] == before
    assert len(load().trials) == 5
    assert run("--n-trials", "5") == 0
    assert "trial " not in capsys.readouterr().err
    assert len(load().trials) == 5
    assert_agreement(load())
    versions = MlflowClient(store()).search_model_versions("name='tiny'")
    assert len({v.run_id for v in versions}) == len(versions)


def test_same_seed_same_scores_and_resumed_equals_undisturbed(tmp_path):
    for folder, steps in (("one", ["6"]), ("two", ["6"]), ("steps", ["2", "3", "6"])):
        (tmp_path / folder).mkdir()
        os.chdir(tmp_path / folder)
        shutil.copy(tmp_path / "mlflow.db", ".")
        for count in steps:
            assert run("--n-trials", count, "--seed", "5", "--pruner", "none") == 0
    found = []
    for folder in ("one", "two", "steps"):
        os.chdir(tmp_path / folder)
        found.append(values(load()))
    assert found[0] == found[1] == found[2]
    os.chdir(tmp_path)


def under_way(number):
    """Return a function that tells whether a trial is being trained, by the storage on disk."""

    def look():
        if not Path("optuna.journal").exists():
            return False
        states = [t.state for t in load().trials]
        return len(states) > number and states[number] == TrialState.RUNNING

    return look


STOPS = {
    "Ctrl-C": ([signal.SIGINT], 130),
    "Ctrl-C twice": ([signal.SIGINT] * 2, 130),
    "SIGTERM": ([signal.SIGTERM], 130),
    "kill -9": ([signal.SIGKILL], -9),
}


@pytest.mark.slow
@pytest.mark.parametrize("stop", STOPS)
def test_stopped_in_the_middle_it_goes_on_to_the_same_scores(stop, tmp_path):
    signals, code = STOPS[stop]
    (tmp_path / "undisturbed").mkdir()
    os.chdir(tmp_path / "undisturbed")
    shutil.copy(tmp_path / "mlflow.db", ".")
    assert run("--n-trials", "4") == 0
    expected = values(load())
    os.chdir(tmp_path)
    process = start("--n-trials", "4", SLOW="0.5")
    wait_for(process, under_way(2))
    for number in signals:
        process.send_signal(number)
        time.sleep(0.2)
    errors = end_of(process)
    assert process.returncode == code
    states = [t.state.name for t in load().trials]
    assert states[:2] == ["COMPLETE", "COMPLETE"]
    if stop != "kill -9":
        assert "Traceback" not in errors
        assert "run the same command to go on" in errors
        assert "Received SIGTERM" not in errors  # Lightning's own line
        finishes = stop == "Ctrl-C"  # up to where the trial pauses
        assert states[2:] == ["WAITING"]
        assert is_paused(load().trials[2]) == finishes
        assert ("finishing the running trials" in errors) == (stop != "SIGTERM")
        parents, nested = children()
        assert parents[0].info.status == "KILLED"
        assert set(nested) == ({0, 1, 2} if finishes else {0, 1})
    assert run("--n-trials", "4") == 0
    assert values(load()) == expected
    assert_agreement(load())


def test_a_failing_recipe_fails_alone_with_its_traceback():
    def backbone(tricks):
        if getattr(tricks.optimizer, "kind", "") == "sgd":
            raise RuntimeError("out of memory, they say")
        return mlp()

    space = Space(Tricks).pin({"normalization": "batch"})
    study = create_study("tiny", storage=None, sampler="random")
    optimize(study, task(backbone=backbone), n_trials=3, space=space, progress=False)
    assert study.trials[1].state == TrialState.FAIL
    assert Outcome.read(study.trials[1]).reason == "RuntimeError: out of memory, they say"
    assert_agreement(study)
    _, nested = children()
    assert nested[1].data.tags["reason"] == "RuntimeError: out of memory, they say"
    text = mlflow.artifacts.load_text(f"{nested[1].info.artifact_uri}/traceback.txt")
    assert "in backbone" in text


@pytest.mark.usefixtures("without_mlflow")
def test_when_all_of_the_first_trials_fail_the_study_stops_and_says_why():
    class Broken(nn.Sequential):
        def forward(self, inputs):
            if self.training and len(inputs) > 4:  # larger than in the checks before
                raise RuntimeError("broken")
            return super().forward(inputs)

    def backbone(tricks):
        return Broken(mlp())

    study = create_study("tiny", storage=None)
    with pytest.raises(InputError, match=r"first 5 trials all failed.*RuntimeError: broken"):
        optimize(study, task(backbone=backbone), n_trials=9, progress=False)


def test_a_diverged_trial_is_pruned_with_its_reason_in_mlflow():
    data = small_data()
    data.splits["train"].inputs.mul_(1e30)
    study = create_study("tiny", storage=None)
    optimize(study, task(data=data), n_trials=2, progress=False)
    assert study.trials[1].state == TrialState.PRUNED
    _, nested = children()
    assert nested[1].info.status == "KILLED"
    assert "became" in nested[1].data.tags["reason"]
    assert_agreement(study)


@pytest.mark.usefixtures("without_mlflow")
def test_a_slow_start_is_spared_by_the_default_pruner():
    """Warm-up, cosine and dropout start slowly: no trial is pruned in the first third."""
    study = create_study("tiny", storage=None, epochs=12)
    for score in (0.8, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.87, 0.88):
        trial = study.ask()
        for epoch in range(12):
            trial.report(score, epoch)
        study.tell(trial, score)
    late = study.ask()
    pruned = []
    for epoch in range(12):
        late.report(0.5 if epoch < 4 else 0.95, epoch)
        pruned.append(late.should_prune())
    assert not any(pruned)
    hopeless = study.ask()
    for epoch in range(12):
        hopeless.report(0.5, epoch)
    assert hopeless.should_prune()
    assert warmup_epochs(12) == 4


def test_the_champion_is_registered_once_and_answers_on_raw_inputs():
    study = create_study("tiny", storage=None)
    data = small_data()
    chosen = task(data=data)
    optimize(study, chosen, n_trials=3, progress=False)
    optimize(study, chosen, n_trials=3, progress=False)
    client = MlflowClient(store())
    (version,) = client.search_model_versions("name='tiny'")
    assert client.get_model_version_by_alias("tiny", "best").version == version.version
    _, nested = children()
    best = study.best_trial.number
    assert version.run_id == nested[best].info.run_id
    mlflow.set_tracking_uri(store())
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    try:
        model = mlflow.pytorch.load_model("models:/tiny@best")
    finally:
        del os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"]
    split = data.splits["test"]
    accuracy = float((model(split.inputs).argmax(1) == split.targets).float().mean())
    assert nested[best].data.metrics["test/accuracy"] == pytest.approx(accuracy, rel=1e-4)
    assert model(split.inputs[:5]).shape == (5, 3)
    scored = mlflow.pyfunc.load_model("models:/tiny@best").predict(split.inputs[:7].numpy())
    np.testing.assert_allclose(scored, model(split.inputs[:7]).detach().numpy(), rtol=1e-5)

    uri = f"{nested[best].info.artifact_uri}/best"
    recipe = json.loads(mlflow.artifacts.load_text(f"{uri}/tricks.json"))
    module = load_with_tricks("models:/tiny@best", mlp()).eval()
    assert module.tricks == Tricks.parse(recipe)
    torch.testing.assert_close(module(split.inputs), model(split.inputs))


@pytest.mark.slow
def test_the_champion_keeps_what_its_network_has_beside_tensors():
    study = create_study("tiny", storage=None)
    chosen = task(backbone=lambda tricks: Demanding(*mlp()))
    optimize(study, chosen, n_trials=2, progress=False, workers=1)  # so its state comes from a worker
    client = MlflowClient(store())
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert client.get_model_version_by_alias("tiny", "best")


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_text("no")], ids=["gone", "torn"]
)
def test_lost_weights_of_the_champion_are_trained_again(damage):
    study = create_study("tiny", storage=None)
    optimize(study, task(), n_trials=2, progress=False)
    for path in Path("checkpoints/tiny").glob("*.pt"):
        damage(path)
    optimize(study, task(), n_trials=2, progress=False, tracking_uri="sqlite:///other.db")
    client = MlflowClient(store("other.db"))
    assert client.get_model_version_by_alias("tiny", "best")
    assert_agreement(study, store("other.db"))


@pytest.mark.usefixtures("without_mlflow")
def test_only_the_weights_of_the_best_few_and_the_references_are_kept():
    study = create_study("tiny", storage=None, pruner="none")
    optimize(study, task(), n_trials=4, keep=2, progress=False)
    optimize(study, task(), n_trials=8, keep=2, progress=False)
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    best = sorted(complete, key=lambda t: rank_of(t, "max"))[:2]
    kept = {path.name for path in Path("checkpoints/tiny").glob("*.pt")}
    assert kept == {f"trial-{number:05d}.pt" for number in {0, 1, *(t.number for t in best)}}
    assert not list(Path("checkpoints/tiny/running").iterdir())


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.parametrize("finalists", [0, 2])
def test_a_timeout_before_the_first_trial_ends_leaves_nothing_to_show(finalists):
    study = create_study("tiny", storage=None)
    early = optimize(study, task(), n_trials=4, finalists=finalists, timeout=1e-3, progress=False)
    assert early.text() == "no trial has ended"
    assert early.verdict is None
    optimize(study, task(), n_trials=2, progress=False)
    assert sum(trial.state.is_finished() for trial in study.trials) == 2


def test_callbacks_that_are_no_functions_are_refused_before_a_trial_begins():
    study = create_study("tiny", storage=None)
    for callbacks in (print, None, [1]):
        with pytest.raises(InputError, match="callbacks must be a list of functions"):
            optimize(study, task(), n_trials=4, callbacks=callbacks, progress=False)
    assert not study.trials


def test_a_timeout_begins_no_further_trial():
    study = create_study("tiny", storage=None)
    optimize(study, task(), n_trials=50, timeout=0.01, progress=False)
    assert len([t for t in study.trials if t.state.is_finished()]) <= 1


@pytest.mark.parametrize(
    ("at_timeout", "state"),
    [pytest.param("finish", "COMPLETE", marks=pytest.mark.slow), ("requeue", "WAITING")],
)
def test_at_a_timeout_the_trial_under_way_is_finished_or_put_back(at_timeout, state, tmp_path):
    chosen = troubled.task(tmp_path, epochs=4)
    slow = Space(troubled.Troubled).pin({"trouble": "slow"})
    study = create_study("tiny", storage=None)
    optimize(study, chosen, n_trials=9, space=slow, timeout=3, at_timeout=at_timeout, progress=False)
    assert [t.state.name for t in study.trials if t.state.is_finished() or t.params] == [state]
    kept = [path.name for path in Path("checkpoints/tiny/running").iterdir()]
    assert kept == (["trial-00000.ckpt"] if state == "WAITING" else [])
    assert_agreement_of_finished(study)


def assert_agreement_of_finished(study):
    _, nested = children()
    assert set(nested) == {t.number for t in study.trials if t.state.is_finished()}


REFUSED = {
    "direction": (
        lambda s: optimize(s, task(monitor="val/loss", mode="min"), n_trials=3),
        "to minimize",
    ),
    "epochs": (lambda s: optimize(s, task(epochs=4), n_trials=3), r"epochs \(3 there, 4 now\)"),
    "seed": (lambda s: optimize(s, task(), n_trials=3, seed=7), r"seed \(0 there, 7 now\)"),
    "monitor": (
        lambda s: optimize(
            s, task(metrics={"f": task().metrics["accuracy"]}, monitor="val/f"), n_trials=3
        ),
        "monitor",
    ),
    "space": (
        lambda s: optimize(s, task(), n_trials=3, space=Space(Tricks).pin({"optimizer": "sgd"})),
        "search space .optimizer",
    ),
    "trials": (lambda s: optimize(s, task(), n_trials=0), "n_trials must be a whole number"),
    "timeout": (lambda s: optimize(s, task(), n_trials=3, timeout=float("nan")), "timeout"),
}


@pytest.mark.usefixtures("without_mlflow")
def test_what_does_not_fit_a_study_is_refused_and_loses_nothing():
    study = create_study("tiny", storage=None)
    optimize(study, task(), n_trials=2, progress=False)
    before = values(study)
    for call, message in REFUSED.values():
        with pytest.raises(InputError, match=message):
            call(study)
    assert values(study) == before


@pytest.mark.slow
def test_a_second_program_on_the_same_study_is_refused():
    process = start("--n-trials", "3", SLOW="0.5")
    wait_for(process, under_way(0))
    with pytest.raises(InputError, match="another program works on this study"):
        optimize(load(), tiny_study.task(), n_trials=3)
    end_of(process)
    assert process.returncode == 0
    assert_agreement(load())


def test_a_study_of_a_task_has_its_name_direction_and_length():
    small = task(monitor="val/loss", epochs=6)
    study = create_study(small, storage=None, pruner="halving")
    assert (study.study_name, study.direction.name) == ("tiny", "MINIMIZE")
    assert study.pruner._min_resource == warmup_epochs(6)
    other = create_study(
        small, name="other", direction="maximize", epochs=9, storage=None, pruner="halving"
    )
    assert (other.study_name, other.direction.name) == ("other", "MAXIMIZE")
    assert other.pruner._min_resource == warmup_epochs(9)
    named = create_study("named", storage=None, pruner="halving")
    assert (named.study_name, named.direction.name) == ("named", "MAXIMIZE")
    with pytest.raises(InputError, match="epochs must be a whole number"):
        create_study(small, epochs=0, storage=None)
    with pytest.raises(InputError, match="a name must be"):
        create_study(small, name="", storage=None)
    with pytest.raises(InputError, match="a name must be"):
        create_study(None, storage=None)


def test_a_failed_start_does_not_claim_the_study():
    study = create_study("tiny", storage=None)
    with pytest.raises(InputError, match="MLflow cannot be opened"):
        optimize(study, task(epochs=2), n_trials=3, tracking_uri="sqlite:////nowhere/mlflow.db")
    optimize(study, task(), n_trials=1, progress=False)


def test_a_journal_with_a_torn_last_line_goes_on():
    assert run("--n-trials", "3") == 0
    journal = Path("optuna.journal")
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-20])
    assert run("--n-trials", "4") == 0
    assert len(load().trials) == 4


@pytest.mark.usefixtures("without_mlflow")
def test_a_recipe_that_cannot_be_trained_costs_one_trial():
    class Deep(Tricks):
        network: ConvNet = ConvNet(width=8)

    space = Space(Deep).narrow({"network.depth": {"low": 1, "high": 9}}).pin({"normalization": "batch"})
    chosen = task(
        tricks=Deep, data=small_data(1, 8, 8), backbone=lambda t: t.network.build((1, 8, 8), 3)
    )
    study = create_study("tiny", storage=None, sampler="random")
    optimize(study, chosen, n_trials=6, space=space, progress=False)
    reasons = [Outcome.read(t).reason for t in study.trials if t.state == TrialState.FAIL]
    assert reasons
    assert all("needs samples of shape" in reason for reason in reasons)


@pytest.mark.usefixtures("without_mlflow")
def test_a_study_of_another_program_is_refused():
    study = optuna.create_study(direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(InputError, match="holds 1 trials of another program"):
        optimize(study, task(), n_trials=3)


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.parametrize("name", ["tricks", "tpe", "random"])
def test_a_sampler_does_not_depend_on_how_often_it_was_made(name):
    def propose(resume):
        study = optuna.create_study(sampler=SAMPLERS[name](3))
        for count in range(14):
            if resume and count % 3 == 0:
                study.sampler = SAMPLERS[name](3)
            trial = study.ask()
            x = trial.suggest_float("x", 0, 1)
            if trial.suggest_categorical("more", [True, False]):
                x += trial.suggest_float("more.y", 0, 1)
            study.tell(trial, x)
        return [t.params for t in study.trials]

    assert propose(resume=False) == propose(resume=True)


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.parametrize("storage", ["sqlite:///optuna.db", "folder.journal"])
def test_a_put_back_trial_keeps_its_number_and_parameters(storage):
    from lightning_tricks.search.optuna_internals import requeue

    study = create_study("tiny", storage=storage)
    trial = study.ask()
    x = trial.suggest_float("x", 0, 1)
    trial.report(0.5, 0)
    requeue(study, trial)
    again = study.ask()
    assert (again.number, again.suggest_float("x", 0, 1)) == (trial.number, x)
    study.tell(again, 1.0)
    assert len(study.trials) == 1


def test_the_plain_network_of_the_tests_is_small():
    assert sum(p.numel() for p in nn.ModuleList([mlp()]).parameters()) < 200
    assert variant("optimizer", "adam").lr == Tricks().optimizer.lr
