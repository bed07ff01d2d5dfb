"""Are the registered models there, complete, once each, and in their study's experiment?"""

import contextlib
import itertools
import os
import shutil
from pathlib import Path

import mlflow
import pytest
import tiny_study
from mlflow.tracking import MlflowClient
from test_study import store, task
from test_verdict import search, verdict_study

from lightning_tricks import create_study, load_with_tricks
from lightning_tricks.search.keys import PART_RUNS, UNWRITTEN
from lightning_tricks.tracking.holdings import PARENT

DAMAGES = {
    "the alias moved": lambda client: client.set_registered_model_alias("tiny", "champion", "2"),
    "the ensemble is gone": lambda client: client.delete_model_version("tiny", "2"),
    "a network without a version": lambda client: client.create_logged_model(
        client.get_experiment_by_name("tiny").experiment_id, tags={"study": "tiny"}
    ),
    "the files of the models": lambda client: [shutil.rmtree(p) for p in Path("mlruns").rglob("models")],
    "the files of all runs": lambda client: shutil.rmtree("mlruns"),
    "empty weights": lambda client: cut_short("*/artifacts/champion/*", 0),
    "nonsense in a tag": lambda client: client.set_model_version_tag(
        "tiny", client.get_model_version_by_alias("tiny", "champion").version, "contents", "[1"
    ),
    "half a network": lambda client: cut_short("models/*/artifacts/**/*.pt2", 0.5),
}


def cut_short(pattern, share):
    """Leave only a share of the bytes of some of MLflow's files, as a power cut may."""
    files = [path for path in Path("mlruns").rglob(pattern) if path.is_file()]
    assert files
    for path in files:
        os.truncate(path, int(share * path.stat().st_size))


@pytest.fixture(scope="module")
def judged(tmp_path_factory, empty_store):
    """Return a folder with a study that has a verdict."""
    folder = tmp_path_factory.mktemp("judged")
    shutil.copy(empty_store, folder / "mlflow.db")
    with contextlib.chdir(folder):
        search(create_study("tiny", storage="optuna.journal", epochs=3), tiny_study.task(), n_trials=4)
    return folder


TOGETHER = (
    ("the alias moved", "a network without a version", "half a network"),
    ("the ensemble is gone", "empty weights"),
    ("nonsense in a tag", "the files of the models"),
    ("the files of all runs",),
)
"""Damages that do not hide each other."""


def test_every_damage_is_done_once():
    assert sorted(itertools.chain(*TOGETHER)) == sorted(DAMAGES)


@pytest.mark.parametrize("damages", TOGETHER, ids=" and ".join)
def test_registered_models_are_checked_and_brought_back(damages, judged, monkeypatch, capsys):
    monkeypatch.chdir(judged)
    client = MlflowClient(store())
    told = 0
    for damage in damages:
        DAMAGES[damage](client)
        capsys.readouterr()
        assert tiny_study.main(tiny_study.task, ["--check"]) == 1
        before, told = told, len(capsys.readouterr().out)
        assert told > before, damage  # than without this damage
    assert tiny_study.main(tiny_study.task, ["--check", "--repair"]) == 0, capsys.readouterr().out
    assert tiny_study.main(tiny_study.task, ["--check"]) == 0, capsys.readouterr().out
    mlflow.set_tracking_uri(store())
    inputs, _ = tiny_study.task().example()
    for alias in ("champion", "ensemble"):
        assert mlflow.pytorch.load_model(f"models:/tiny@{alias}")(inputs).shape == (len(inputs), 3)
    again = load_with_tricks("models:/tiny@champion", tiny_study.backbone, tracking_uri=store())
    assert again(inputs).shape == (len(inputs), 3)
    assert not again.training
    if "the ensemble is gone" not in damages:  # MLflow does not reuse the ensemble's version number
        assert len(client.search_model_versions("name='tiny'")) == 2


def test_a_part_that_was_not_closed_in_mlflow_is_completed_by_the_same_command(judged, monkeypatch):
    monkeypatch.chdir(judged)
    study, client = create_study("tiny", storage="optuna.journal", epochs=3), MlflowClient(store())
    assert study.user_attrs[UNWRITTEN] == []
    own = client.get_experiment_by_name("tiny").experiment_id
    verdict = study.user_attrs[PART_RUNS]["verdict"]
    runs = client.search_runs([own], f"tags.`mlflow.parentRunId` = '{verdict}'")
    client.delete_run(runs[0].info.run_id)
    assert tiny_study.main(tiny_study.task, ["--check"]) == 1
    study.set_user_attr(UNWRITTEN, ["verdict"])  # as `kill -9` leaves it while MLflow is written to
    assert tiny_study.main(tiny_study.task, ["--n-trials", "4"]) == 0
    assert tiny_study.main(tiny_study.task, ["--check"]) == 0
    assert create_study("tiny", storage="optuna.journal", epochs=3).user_attrs[UNWRITTEN] == []


def test_check_and_repair_know_the_verdict(judged, monkeypatch, capsys):
    monkeypatch.chdir(judged)
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


def test_a_verdict_whose_run_was_deleted_is_written_anew_with_its_models(judged, monkeypatch, capsys):
    monkeypatch.chdir(judged)
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
    mlflow.set_tracking_uri(store())
    for alias in ("champion", "ensemble"):
        model = mlflow.pytorch.load_model(f"models:/tiny@{alias}")
        assert model(inputs).shape == (len(inputs), 3)
    (registered,) = [
        version
        for version in client.search_model_versions("name='tiny'")
        if "champion" in client.get_model_version("tiny", version.version).aliases
    ]
    assert registered.run_id not in (None, parent.info.run_id)


def test_an_experiment_may_be_renamed(judged, monkeypatch):
    monkeypatch.chdir(judged)
    client = MlflowClient(store())
    own = client.get_experiment_by_name("tiny").experiment_id
    client.rename_experiment(own, "my best work")
    assert tiny_study.main(tiny_study.task, ["--n-trials", "4"]) == 0
    assert tiny_study.main(tiny_study.task, ["--check"]) == 0
    assert {e.name for e in client.search_experiments()} == {"my best work", "Default"}
    client.rename_experiment(own, "tiny")


def test_models_are_of_the_experiment_of_their_study(judged, monkeypatch):
    monkeypatch.chdir(judged)
    client = MlflowClient(store())
    own = client.get_experiment_by_name("tiny").experiment_id
    assert not client.search_logged_models(["0"])
    assert len(client.search_logged_models([own])) >= 2


def test_a_study_whose_default_experiment_was_deleted_has_its_champion(with_store):
    client = MlflowClient(store())
    client.delete_experiment("0")
    search(create_study("tiny", storage=None), task(), n_trials=3)
    assert client.get_model_version_by_alias("tiny", "champion").version
