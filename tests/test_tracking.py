"""MLflow with a real server that is killed, and with a real browser."""

import shutil
import threading
import time

import mlflow
import pytest
from conftest import mlp, small_data
from mlflow.tracking import MlflowClient
from playwright.sync_api import sync_playwright
from server import Server
from test_study import assert_agreement, children, task

from lightning_tricks import Task, create_study, optimize
from lightning_tricks import tracking as tracking_module
from lightning_tricks.tracking import Tracker, Update, metrics_at, significant

CHROMIUM = shutil.which("chromium")


@pytest.fixture
def server(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "server.db")
    one = Server(tmp_path)
    one.start()
    yield one
    one.kill()


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
    assert MlflowClient(server.uri).get_model_version_by_alias("tiny", "champion")


def test_a_server_that_stays_down_stops_nothing_and_the_next_run_writes_what_is_missing(server, capsys):
    study = create_study("tiny", storage=None)

    def backbone(tricks):
        if len([t for t in study.trials if t.state.is_finished()]) == 2:
            server.kill()
        return mlp()

    optimize(study, task(backbone=backbone), n_trials=5, tracking_uri=server.uri)
    assert "run the same command again" in capsys.readouterr().err
    assert len(study.trials) == 5
    server.start()
    optimize(study, task(backbone=backbone), n_trials=5, tracking_uri=server.uri, progress=False)
    assert_agreement(study, server.uri)


def test_writing_does_not_wait_for_the_store(monkeypatch):
    tracker = Tracker("sqlite:///mlflow.db", "slow", print)
    tracker.open(None, "slow", {})
    released = threading.Event()
    monkeypatch.setattr(tracker, "_apply", lambda number, update: released.wait(60))
    before = threading.active_count()
    for step in range(1000):
        tracker.update(0, Update(metrics=metrics_at(step, {"m": 1.0}, 0)))
    assert not tracker.flush(timeout=0.2)
    assert threading.active_count() == before
    released.set()
    assert tracker.flush(timeout=60)
    tracker.close("FINISHED")


def test_a_long_trial_is_written_in_few_batches(monkeypatch):
    monkeypatch.setattr(tracking_module, "FLUSH_SECONDS", 0.0)
    tracker = Tracker("sqlite:///mlflow.db", "long", print)
    tracker.open(None, "long", {})
    metrics = [m for step in range(500) for m in metrics_at(step, {"a": 1.0, "b": 2.0}, step)]
    params = {f"p{index}": "x" for index in range(150)}
    tracker.update(0, Update(params=params, metrics=metrics, tags={"trial.state": "COMPLETE"}))
    assert tracker.flush(timeout=60)
    tracker.close("FINISHED")
    run = MlflowClient(tracker._store).get_run(tracker.run_of(0))
    assert len(run.data.params) == 150
    history = MlflowClient(tracker._store).get_metric_history(run.info.run_id, "b")
    assert len(history) == 500


def test_curves_are_there_while_a_trial_trains():
    study = create_study("tiny", storage=None)
    seen = []

    def backbone(tricks):
        deadline = time.monotonic() + 60
        while len(study.trials) > 2 and not seen and time.monotonic() < deadline:
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


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
def test_the_printed_link_shows_scores_and_tricks_best_first(server):
    study = create_study("tiny", storage=None)
    chosen = Task("tiny", small_data(), lambda tricks: mlp(), epochs=2)
    summary = optimize(study, chosen, n_trials=4, tracking_uri=server.uri, progress=False)
    link = summary.look.split()[-1]
    assert link.startswith(server.uri)
    flags = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 3600, "height": 900})
        page.goto(link)
        page.wait_for_selector("text=trial-000", timeout=120_000)
        page.wait_for_selector("text=objective", timeout=60_000)
        text = page.inner_text("body")
        browser.close()
    for word in ("objective", "optimizer", "normalization", "trial-003", "tricks"):
        assert word in text
    best = max(study.trials, key=lambda t: (t.value or 0, -t.number))
    rows = [line for line in text.splitlines() if line.startswith("trial-")]
    scores = {f"trial-{t.number:03d}": t.value or 0 for t in study.trials}
    assert scores[rows[0]] == best.value
    assert mlflow.get_tracking_uri() != server.uri
