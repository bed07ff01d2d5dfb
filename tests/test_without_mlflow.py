"""A study without MLflow imports nothing of it, and its results are in the study's folder."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny_study
import torch
from conftest import optimize

from lightning_tricks import MLP, InputError, Observer, create_study, load_with_tricks, main
from lightning_tricks.search.keys import BASELINE, kept
from lightning_tricks.search.studies import load_study
from lightning_tricks.workers.inline import Inline

SCRIPT = """
import sys
import torch
from lightning_tricks import MLP, InMemoryData, Task, main

inputs = torch.randn(160, 6, generator=torch.Generator().manual_seed(0))
data = InMemoryData.from_arrays(inputs, (inputs[:, 0] > 0).long(), batch_size=16)
task = Task("judged", data, lambda tricks: MLP().build((6,), 2), epochs=4)
code = main(lambda: task, sys.argv[1:], n_trials=4, finalists=1, repeats=1)
print(*sorted(name for name in sys.modules if name.partition(".")[0] == "mlflow"))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a study without MLflow, and the output of its command."""
    path = tmp_path_factory.mktemp("alone")
    flags = ["--seeds", "3", "--workers", "inline", "--tracking-uri", "none"]
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, *flags],
        cwd=path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    (path / "printed").write_text(found.stdout)
    return path


@pytest.mark.slow
@pytest.mark.xdist_group("without MLflow")
def test_nothing_of_mlflow_is_imported_or_made(folder):
    *_, look, imported = (folder / "printed").read_text().splitlines()
    assert imported == ""
    assert look.split()[-1] == str(folder / "checkpoints" / "judged" / "report.html")
    assert not list(folder.glob("mlflow.db")) + list(folder.glob("mlruns"))


@pytest.mark.slow
@pytest.mark.xdist_group("without MLflow")
def test_report_and_description_lie_in_the_folder(folder):
    place = folder / "checkpoints" / "judged"
    study = load_study("judged", folder / "optuna.journal")
    headline = study.user_attrs[kept("verdict")]["label"]
    assert headline in (place / "README.md").read_text()
    assert "<html" in (place / "report.html").read_text()
    assert (place / "report.md").read_text().startswith("# Study judged")


@pytest.mark.slow
@pytest.mark.xdist_group("without MLflow")
def test_champion_and_ensemble_are_loaded_from_the_folder(folder):
    place = folder / "checkpoints" / "judged"
    inputs = torch.randn(5, 6)
    outputs = [
        load_with_tricks(place / alias, MLP().build((6,), 2), member=member)(inputs)
        for alias, member in (("champion", 0), ("ensemble", 0), ("ensemble", 1))
    ]
    assert all(torch.isfinite(found).all() for found in outputs)
    assert not torch.allclose(outputs[1], outputs[2])
    with pytest.raises(InputError, match="weights-9"):
        load_with_tricks(place / "ensemble", MLP().build((6,), 2), member=9)


def test_check_and_repair_are_refused_in_a_line(capsys):
    assert main(tiny_study.task, ["--check", "--tracking-uri", "none"]) == 2
    assert "cannot go with --tracking-uri none" in capsys.readouterr().err


def test_a_study_goes_on_with_mlflow_which_then_holds_all_of_it(with_store):
    study = create_study("tiny", storage="optuna.journal")
    options = {"workers": "inline", "progress": False, "finalists": 1, "seeds": 3}
    optimize(study, tiny_study.task(), n_trials=3, tracking_uri=None, **options)
    optimize(study, tiny_study.task(), n_trials=4, **options)
    assert tiny_study.main(tiny_study.task, ["--check"]) == 0


def test_what_cannot_be_written_ends_no_study(capsys):
    Path("checkpoints", "tiny", "README.md").mkdir(parents=True)
    study = create_study("tiny", storage=None)
    summary = optimize(study, tiny_study.task(), n_trials=2, tracking_uri=None, workers="inline")
    assert "README.md cannot be written" in capsys.readouterr().err
    assert "run the same command again" in summary.missing


class Listening(Observer):
    """Records what it hears."""

    def __init__(self):
        self.heard = []

    def began(self, number, tricks, seed):
        self.heard.append(("began", number))

    def epoch(self, number, epoch):
        self.heard.append(("epoch", number, epoch.number))

    def ended(self, trial, outcome):
        self.heard.append(("ended", trial.number, outcome.state))

    def concluded(self, study):
        self.heard.append(("concluded", BASELINE in study.user_attrs))


def test_an_observer_hears_of_each_trial_in_order():
    mine = Listening()
    task = tiny_study.task()
    study = create_study("tiny", storage=None, pruner="none")
    optimize(study, task, n_trials=2, tracking_uri=None, observers=[mine], progress=False)
    one = [("epoch", 0, number) for number in range(task.epochs)]
    assert mine.heard[: len(one) + 2] == [("began", 0), *one, ("ended", 0, "complete")]
    assert mine.heard[-1] == ("concluded", True)


def test_an_observer_that_fails_is_told_in_a_line():
    class Failing(Observer):
        def ended(self, trial, outcome):
            raise KeyError("gone")

    with pytest.raises(InputError, match="the observer Failing fails: KeyError: 'gone'"):
        optimize(
            create_study("tiny", storage=None),
            tiny_study.task(),
            n_trials=2,
            tracking_uri=None,
            observers=[Failing()],
            progress=False,
        )


def test_workers_of_ones_own_train_the_search_and_its_verdict():
    made = []

    def workers(task):
        made.append(Inline(task, 1, lambda: False))
        return made[-1]

    summary = optimize(
        create_study("tiny", storage=None),
        tiny_study.task(),
        n_trials=3,
        finalists=1,
        seeds=3,
        workers=workers,
        tracking_uri=None,
        progress=False,
    )
    assert summary.verdict is not None
    assert [each.runner.task.own_splits for each in made] == [False, True]
