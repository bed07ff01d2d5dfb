"""Names of metrics in MLflow: any name that a module logs gets its own, and can be read back."""

import string
from pathlib import Path

import pytest
import tiny_study
from conftest import mlp, optimize, small_data
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.validation import _validate_metric_name
from test_study import children, store

from lightning_tricks import Task, create_study
from lightning_tricks.tracking.agreement import differences
from lightning_tricks.tracking.names import MOST_CHARACTERS, OWN, key_of, name_of

NAMES = st.text(f"{string.printable}_x40/. äß中😀", min_size=1) | st.text(min_size=1, max_size=60)


@given(NAMES.filter(lambda name: len(key_of(name)) < MOST_CHARACTERS))
def test_mlflow_takes_every_name_and_the_way_back_is_known(name):
    _validate_metric_name(key_of(name))
    assert name_of(key_of(name)) == name
    assert key_of(name) not in OWN


@given(NAMES)
@example(".")
def test_long_names_are_cut(name):
    _validate_metric_name(key_of(name * 20))


@pytest.mark.parametrize("name", ["val/accuracy", "train_loss", "gradient/first", "F1.macro", "é"])
def test_ordinary_names_stay(name):
    assert key_of(name) == name


ODD = ("acc@1", "F1 (macro)", "objective", "a//b", " x", "<b>|*x*")


def odd_task():
    """Return a task with metric names that MLflow refuses."""
    metrics = {
        name: lambda outputs, targets: (outputs.argmax(1) == targets).float().mean() for name in ODD
    }
    return Task(
        "tiny", small_data(), lambda tricks: mlp(), epochs=2, metrics=metrics, monitor="val/acc@1"
    )


@pytest.mark.usefixtures("with_store")
def test_metrics_of_any_name_are_recorded_and_compared_and_it_is_said_once(capsys):
    study = create_study("tiny", storage=None)
    optimize(study, odd_task(), n_trials=3, finalists=1, seeds=3)
    told = capsys.readouterr().err
    assert told.count("'val/acc@1' is 'val/acc_x40_1'") == 1
    assert "does not answer" not in told
    assert differences(study, odd_task(), store()) == []
    client = MlflowClient(store())
    found = client.search_runs(
        [client.get_experiment_by_name("tiny").experiment_id], "tags.`trial.number` = '1'"
    )
    metrics = found[0].data.metrics
    assert {key_of(f"val/{name}") for name in ODD} <= metrics.keys()
    report = Path(client.download_artifacts(study.user_attrs["tricks:mlflow_run"], "summary.md"))
    assert "<b>" not in report.read_text().replace("\\<b>", "")


@pytest.mark.usefixtures("with_store")
def test_what_mlflow_refuses_for_good_is_left_out_and_holds_nothing_up(monkeypatch, capsys):
    whole = MlflowClient.log_batch

    def refusing(self, run_id, metrics=(), *rest, **more):
        if any(metric.key == "val/loss" for metric in metrics) and trial_of(self, run_id) == "1":
            raise MlflowException("no such thing", error_code=1000)  # INVALID_PARAMETER_VALUE
        return whole(self, run_id, metrics, *rest, **more)

    def trial_of(client, run_id):
        return client.get_run(run_id).data.tags.get("trial.number")

    monkeypatch.setattr(MlflowClient, "log_batch", refusing)
    assert tiny_study.main(tiny_study.task, ["--n-trials", "3", "--workers", "inline"]) == 3
    told = capsys.readouterr().err
    assert "MLflow refuses an update of trial 1" in told
    assert "does not answer" not in told
    runs = children()[1]
    assert {number: run.info.status for number, run in runs.items()} == dict.fromkeys(
        range(3), "FINISHED"
    )
    assert runs[1].data.tags["refused"]
    monkeypatch.setattr(MlflowClient, "log_batch", whole)
    assert tiny_study.main(tiny_study.task, ["--check", "--repair"]) == 0


@pytest.mark.usefixtures("with_store")
def test_a_folder_of_artifacts_that_cannot_be_written_is_told_at_once(capsys):
    Path("mlruns").write_text("in the way")
    assert tiny_study.main(tiny_study.task, ["--n-trials", "2", "--workers", "inline"]) == 2
    told = capsys.readouterr().err
    assert "MLflow cannot be written to" in told
    assert told.count("\n") == 1
