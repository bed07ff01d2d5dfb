"""MLflow with a real server that is killed, and with a real browser."""

import math
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
import tiny_study
import torch
from browser import chromium, needs_chromium
from conftest import mlp, optimize
from mlflow.entities import Metric, RunData, RunTag
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState, create_trial
from server import Server
from test_study import assert_agreement, children, load, store, task

from lightning_tricks import Space, Tricks, create_study
from lightning_tricks.search.outcomes import Outcome, best_of
from lightning_tricks.search.study_state import StudyState
from lightning_tricks.tracking import trial_updates, writer
from lightning_tricks.tracking.agreement import differences
from lightning_tricks.tracking.format import metrics_at, significant
from lightning_tricks.tracking.run_update import Update
from lightning_tricks.tracking.tracker import Tracker
from lightning_tricks.trial.result import Epoch, Result


@pytest.fixture
def server(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "server.db")
    one = Server(tmp_path)
    one.start()
    yield one
    one.kill()


@pytest.mark.slow
def test_a_server_that_goes_down_and_comes_back_misses_nothing(server, capsys):
    study = create_study("tiny", storage=None)

    def backbone(tricks):
        done = len([t for t in study.trials if t.state.is_finished()])
        if done == 2:
            server.kill()
        elif done == 5:
            time.sleep(1.5)  # long enough for a write to fail
            server.start()
        elif done == 7:
            time.sleep(3)  # long enough for the next attempt
        return mlp()

    optimize(study, task(backbone=backbone), n_trials=8, tracking_uri=server.uri)
    errors = capsys.readouterr().err
    assert "does not answer" in errors
    assert "is back" in errors
    assert_agreement(study, server.uri)
    assert MlflowClient(server.uri).get_model_version_by_alias("tiny", "best")


@pytest.mark.slow
def test_a_server_that_stays_down_stops_nothing_and_the_next_run_writes_what_is_missing(server, capsys):
    study = create_study("tiny", storage=None)

    def backbone(tricks):
        if len([t for t in study.trials if t.state.is_finished()]) == 2:
            server.kill()
        return mlp()

    summary = optimize(study, task(backbone=backbone), n_trials=5, tracking_uri=server.uri)
    errors = capsys.readouterr().err
    assert errors.count("run the same command again") == 1
    assert f"warning: {summary.missing}" in errors
    assert f"MLflow at {server.uri} is incomplete (" in summary.missing
    assert len(study.trials) == 5
    server.start()
    again = optimize(study, task(backbone=backbone), n_trials=5, tracking_uri=server.uri, progress=False)
    assert again.missing == ""
    assert_agreement(study, server.uri)


@pytest.mark.slow
def test_a_command_whose_server_is_not_back_at_the_end_says_so_with_its_exit_code(server, capsys):
    def backbone(tricks):
        if Path("optuna.journal").exists() and any(t.state.is_finished() for t in load().trials):
            server.kill()
        return mlp()

    command = ["--n-trials", "3", "--tracking-uri", server.uri]
    assert tiny_study.main(lambda: task(backbone=backbone), command) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"warning: MLflow at {server.uri} is incomplete")
    server.start()
    assert tiny_study.main(task, [*command, "--same-task"]) == 0  # the backbone differs
    assert_agreement(load(), server.uri)


def test_writing_does_not_wait_for_the_store(monkeypatch):
    tracker = Tracker("sqlite:///mlflow.db", "slow", print)
    tracker.open(None, {})
    released = threading.Event()
    monkeypatch.setattr(tracker.writer, "_apply", lambda number, update: released.wait())
    before = set(threading.enumerate())
    for step in range(1000):
        tracker.update(0, Update(metrics=metrics_at(step, {"m": 1.0}, 0)))
    assert not tracker.flush(timeout=0.2)
    assert set(threading.enumerate()) <= before  # no thread for each update
    released.set()
    assert tracker.flush(timeout=math.inf)
    tracker.close("FINISHED")


def test_a_long_trial_is_written_in_few_batches(monkeypatch):
    monkeypatch.setattr(writer, "FLUSH_SECONDS", 0.0)
    tracker = Tracker("sqlite:///mlflow.db", "long", print)
    tracker.open(None, {})
    metrics = [m for step in range(500) for m in metrics_at(step, {"a": 1.0, "b": 2.0}, step)]
    params = {f"p{index}": "x" for index in range(150)}
    tracker.update(0, Update(params=params, metrics=metrics, tags={"trial.state": "COMPLETE"}))
    assert tracker.flush(timeout=math.inf)
    tracker.close("FINISHED")
    run = MlflowClient(tracker.store).get_run(tracker.run_of(0))
    assert len(run.data.params) == 150
    history = MlflowClient(tracker.store).get_metric_history(run.info.run_id, "b")
    assert len(history) == 500


def test_curves_are_there_while_a_trial_trains():
    study = create_study("tiny", storage=None)
    seen = []

    def backbone(tricks):
        while len(study.trials) > 2 and not seen:
            _, nested = children()  # the third trial is under way
            if 2 in nested:
                seen.append((nested[1].info.status, nested[2].info.status))
            time.sleep(0.1)
        return mlp()

    optimize(study, task(backbone=backbone), n_trials=3, progress=False)
    assert seen == [("FINISHED", "RUNNING")]


def test_numbers_fit_the_cells_of_the_table():
    assert significant(0.976602914) == 0.9766
    assert significant(123456.7) == 123460.0


@pytest.mark.slow
@needs_chromium
def test_the_printed_link_shows_roles_and_tricks_the_champion_first_and_each_page_tells_what_it_is(
    server,
):
    study = create_study("tiny", storage=None, pruner="none")
    chosen = level_task({"level": 0.5})  # all scores are equal
    space = Space(Tricks).pin(FEW)
    where = {"space": space, "tracking_uri": server.uri, "progress": False}
    optimize(study, chosen, n_trials=5, **where)
    study.enqueue_trial(study.trials[2].params)  # already tried
    summary = optimize(study, chosen, n_trials=6, **where)
    link = summary.look.split()[-1]
    assert link.startswith(server.uri)
    best = best_of(study.trials, "max").number
    repeat = next(t for t in study.trials if Outcome.read(t).duplicate_of is not None)
    version = MlflowClient(server.uri).get_model_version_by_alias("tiny", "best")
    with chromium() as browser:
        page = browser.new_page()
        page.goto(link)
        page.wait_for_selector("text=· best")
        page.wait_for_selector("text=first_to_last")
        headers = page.eval_on_selector_all(".ag-header-cell[col-id]", LEFT_TO_RIGHT)
        rows = page.eval_on_selector_all(".ag-row [col-id='attributes.`Run Name`']", TOP_TO_BOTTOM)
        page.goto(f"{link}&compareRunsMode=CHART")
        page.wait_for_selector("text=Add chart")
        page.get_by_text("weights", exact=True).wait_for()
        charts = page.inner_text("body").split()
        page.goto(f"{link.partition('?')[0]}/{version.run_id}")
        page.wait_for_selector("text=Best")
        trial_page = page.inner_text("body")
        page.goto(f"{server.uri}/#/models/tiny/versions/{version.version}")
        page.wait_for_selector("text=of the study")
        version_page = page.inner_text("body")
    shown = [header for header in headers if header.startswith(("tags", "params", "metrics"))]
    assert shown[:5] == [
        "tags.`role`",
        "params.`optimizer`",
        "params.`normalization`",
        "metrics.`objective`",
        "metrics.`weights/first_to_last`",
    ]
    assert charts.index("score") < charts.index("train") < charts.index("weights")
    assert "· best" in rows[0]
    assert rows[0].startswith(f"{best:03d} ·")
    assert f"{repeat.number:03d} · repeat of {Outcome.read(repeat).duplicate_of}" in rows
    assert "No description" not in trial_page
    assert "after 2 epochs" in trial_page
    assert "test/level" in version_page
    assert f'load_model("models:/tiny/{version.version}")' in version_page
    assert mlflow.get_tracking_uri() != server.uri


LEFT_TO_RIGHT = """cells => cells
    .sort((a, b) => a.getBoundingClientRect().x - b.getBoundingClientRect().x)
    .map(cell => cell.getAttribute("col-id"))"""
TOP_TO_BOTTOM = """cells => cells
    .sort((a, b) => a.getBoundingClientRect().y - b.getBoundingClientRect().y)
    .map(cell => cell.innerText.trim().split("\\n").pop())"""
FEW = {
    stage: getattr(Tricks(), stage)
    for stage in Tricks.model_fields
    if stage not in ("scaling", "averaging")
}


def level_task(chosen):
    """Return a task that scores what the test chooses."""
    return task(
        epochs=2,
        metrics={"level": lambda outputs, targets: torch.tensor(chosen["level"])},
        monitor="val/level",
    )


def told(number, uri="sqlite:///mlflow.db"):
    """Return the run of a trial, with its name, role and description."""
    run = children(uri)[1][number]
    tags = run.data.tags
    return run, run.info.run_name, tags["role"], tags["mlflow.note.content"]


def test_another_champion_takes_the_place_of_the_old_one_and_all_can_be_written_anew(with_store):
    chosen = {"level": 0.5}
    study, of_level = create_study("tiny", storage=None, pruner="none"), level_task(chosen)
    space = Space(Tricks).pin({"normalization": "batch"})

    def train(count, **options):
        optimize(study, of_level, n_trials=count, space=space, progress=False, **options)
        return best_of(study.trials, "max").number

    old = train(3)
    role = {0: " · baseline", 1: " · plain"}.get(old, "")
    assert told(old)[1:3] == (f"{old:03d} · best{role}", f"best{role}")
    chosen["level"] = 0.9
    new = train(4)
    assert new == 3
    assert told(old)[1] == f"{old:03d}{role}"
    assert "hampion" not in told(old)[2] + told(old)[3]
    assert told(3)[1:3] == ("003 · best", "best")
    assert told(3)[3].startswith("Best. val/level 0.9000 after 2 epochs. Differs from the baseline in: ")
    assert differences(study, of_level, "sqlite:///mlflow.db") == []
    client = MlflowClient(store())
    versions = {v.run_id: v for v in client.search_model_versions("name='tiny'")}
    version = versions[told(3)[0].info.run_id]
    assert client.get_model_version_by_alias("tiny", "best").version == version.version
    assert f"models:/tiny/{version.version}" in version.description
    assert "test/level 0.9000" in version.description
    assert "| optimizer | " in version.description
    assert "models:/tiny@best" in client.get_registered_model("tiny").description
    parent = children()[0][0]
    assert parent.data.tags["role"] == "study"
    assert "best (trial 3)" in parent.data.tags["mlflow.note.content"]

    before = {number: told(number)[1:] for number in range(4)}
    for run in children()[1].values():
        client.delete_run(run.info.run_id)
    train(4, repair=True)  # the runs of the old model versions are gone too
    assert {number: told(number)[1:] for number in range(4)} == before
    assert differences(study, of_level, "sqlite:///mlflow.db") == []


def test_the_champion_is_the_first_of_its_equals_and_what_was_not_trained_to_the_end_the_last(
    with_store,
):
    for mode, order in (("max", "DESC"), ("min", "ASC")):
        study = create_study(f"tie {mode}", storage=None, pruner="none", direction=f"{mode}imize")
        tied = replace(level_task({"level": 0.5}), mode=mode)
        given = {"space": Space(Tricks).pin(FEW), "seed": 3, "progress": False}
        optimize(study, tied, n_trials=5, **given)
        study.enqueue_trial(study.trials[2].params)  # already tried
        optimize(study, tied, n_trials=6, **given)
        best = best_of(study.trials, mode)
        client = MlflowClient(store())
        experiment = client.get_experiment_by_name(f"tie {mode}").experiment_id
        runs = client.search_runs([experiment], order_by=[f"metrics.objective {order}"])
        assert runs[0].data.tags["trial.number"] != str(best.number)  # MLflow's own order of ties
        runs = client.search_runs([experiment], order_by=[f"metrics.ranking {order}"])
        assert runs[0].data.tags["trial.number"] == str(best.number)
        ranked = ["ranking" in run.data.metrics for run in runs]
        assert ranked == sorted(ranked, reverse=True)
        assert not all(ranked[:-1])  # repeats have no ranking


def test_a_trial_that_was_pruned_says_why():
    stopped = create_trial(
        state=TrialState.PRUNED,
        value=0.4,
        user_attrs={
            "tricks:outcome": Outcome.of(
                Tricks(clipping={"kind": "none"}),
                0,
                Result("pruned", [Epoch(0, 0.4, {})], "the pruner stopped it after epoch 1"),
            ).__dict__
        },
    )
    told = trial_updates.whole(task(), stopped, StudyState(Tricks()))
    assert told.status == "KILLED"
    assert told.tags["reason"] == "the pruner stopped it after epoch 1"
    assert told.tags["mlflow.note.content"] == (
        "Pruned: the pruner stopped it after epoch 1, val/accuracy 0.4000 by then. "
        "Differs from the baseline in: clipping none."
    )


def test_a_repeat_has_no_duration_of_its_own():
    outcome = Outcome.of(Tricks(), 0, Result("complete", [Epoch(0, 0.4, {})], seconds=3.0))
    first = create_trial(value=0.4, user_attrs={"tricks:outcome": outcome.__dict__})
    again = create_trial(
        value=0.4, user_attrs={"tricks:outcome": {**outcome.__dict__, "duplicate_of": 5}}
    )
    one, other = (trial_updates.whole(task(), trial, StudyState(Tricks())) for trial in (first, again))
    assert "seconds" in {metric.key for metric in one.metrics}
    assert "seconds" not in {metric.key for metric in other.metrics}
    assert other.tags["role"] == "repeat of 5"
    assert other.tags["mlflow.runName"].endswith(" · repeat of 5")
    assert other.tags["mlflow.note.content"].startswith("Repeat of 5: nothing was trained.")


def test_a_run_holds_an_update_if_it_has_all_its_tags_and_numbers():
    update = Update(tags={"role": "best"}, metrics=[Metric("loss", 0.5, 0, 0)])

    def run(loss, role):
        return RunData([Metric("loss", loss, 9, 3)], [], [RunTag("role", role), RunTag("more", "1")])

    assert update.is_held_by(run(0.5, "best"))
    assert not update.is_held_by(run(0.6, "best"))
    assert not update.is_held_by(run(0.5, "worst"))
