"""The report to share: one file that needs no network, on a phone and on a screen."""

import contextlib
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import optuna
import pytest
import tiny_study
from browser import chromium, needs_chromium
from mlflow.tracking import MlflowClient
from test_study import run, store, task
from test_verdict import search

from lightning_tricks import InputError, create_study
from lightning_tricks.report.figures import coordinates, rank_from_worst
from lightning_tricks.report.file import write_report
from lightning_tricks.report.importance import importances
from lightning_tricks.report.page import Report
from lightning_tricks.search.keys import VERDICT, kept
from lightning_tricks.search.outcomes import is_repeat
from lightning_tricks.selection.intervals import Interval
from lightning_tricks.selection.result import Verdict
from lightning_tricks.tracking import artifacts
from lightning_tricks.verdict.reporting import report_of

CUT_OFF = (
    "places => [...document.querySelectorAll(places)]"
    ".filter(box => box.scrollWidth > box.clientWidth).length"
)
"""Counts what is wider than its place."""


@pytest.fixture(scope="module")
def judged(tmp_path_factory, empty_store):
    """Return a folder with a study that has a verdict."""
    folder = tmp_path_factory.mktemp("judged")
    shutil.copy(empty_store, folder / "mlflow.db")
    with contextlib.chdir(folder):
        search(create_study("tiny", storage="optuna.journal"), task(), n_trials=8)
    return folder


@pytest.fixture
def report(judged, in_its_own_folder, monkeypatch):
    monkeypatch.chdir(judged)
    study = create_study("tiny")
    return report_of(study, task(), Verdict.read(study.user_attrs[kept(VERDICT)]))


def test_a_report_says_what_was_found_and_how_to_find_it_again(report):
    text = report.markdown()
    label = report.verdict.label
    assert text.startswith(f"# Study tiny\n\n> {label}: ")
    for row in ("plain", "baseline", report.verdict.candidate, "baseline ensemble"):
        assert f"| {row} | " in text or f"| {row} (champion) | " in text
    assert "| baseline (champion) | " in text or label == "Confirmed gain"
    assert f"## What {report.verdict.changer} changes" in text
    for stage, old, new in report.changes:
        assert f"| {stage} | {old} | {new} |" in text
        assert f"- `{stage}` {new}: " in text
    assert f"Smallest difference that matters: {report.verdict.margin:.4f}" in text
    assert "complete, and fewer than 30 tell little" in text  # of importances
    for title in ("How good it is", "Gradient health", "What it cost"):
        assert f"## {title}" in text
    health = text.partition("## Gradient health")[2].partition("##")[0]
    counted = [int(count) for count in re.findall(r"^\| \w+ \| \w+ \| (\d+) \|", health, re.MULTILINE)]
    assert sum(counted) == len(report.trials)
    assert "| optuna | " in text
    page = report.html()
    assert page.count("<svg") == 5
    first = page.partition("<nav>")[0]  # the answer, four numbers, what to change
    assert f"<b>{label}:</b>" in first
    assert first.count("<div><b>") == 4
    assert report.changes[0][0] in first
    links = re.findall(r'<a href="#([^"]+)">', page)
    assert len(links) == page.count("<h2 ") > 7
    assert all(f'id="{link}"' in page for link in links)
    assert "<title>trial 0, baseline: " in page  # what a pointer on a point is told
    assert not re.search(r'(src|href)="(?!#)', re.sub(r'xlink:href="#[^"]*"', "", page))
    assert "@import" not in page
    assert len(page) < 300_000
    assert len(set(re.findall(r'id="([^"]+)"', page))) > 20
    images = report.images()
    names = ["figures/1_gain.svg", "figures/2_how_good_it_is.svg", "figures/3_learning_curves.svg"]
    assert list(images)[:3] == names
    assert len(images) == 5
    for image in images.values():
        assert ElementTree.fromstring(image).tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.slow
@needs_chromium
def test_a_report_fits_a_phone_and_a_screen_and_asks_nobody(report, tmp_path):
    path = tmp_path / "report.html"
    long = replace(report.verdict.gain, interval=Interval(0.0027, 0.00001, 0.00539))
    report.verdict = replace(report.verdict, gain=long)  # five digits
    path.write_text(report.html(), encoding="utf-8")
    asked, said = [], []
    with chromium() as browser:
        for width in (390, 794, 1300):  # a phone, A4, a screen
            page = browser.new_page()
            page.set_viewport_size({"width": width, "height": 900})
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: said.append(message.text))
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            places = ".tiles div" if width == 390 else ".scroll, .tiles div, pre"
            assert page.evaluate(CUT_OFF, places) == 0  # on a phone code and wide tables scroll
            assert page.locator("svg").first.bounding_box()["width"] > 0.7 * min(width, 736)
    assert set(asked) == {path.as_uri()}
    assert said == []


def test_a_report_is_kept_with_the_study_and_written_again_without_training(report, capsys):
    client = MlflowClient(store())
    experiment = client.get_experiment_by_name("tiny").experiment_id
    (run,) = client.search_runs([experiment], "tags.`role` = 'study'")
    assert {"report.html", "report.md"} <= {f.path for f in client.list_artifacts(run.info.run_id)}
    trials = len(create_study("tiny").trials)
    assert tiny_study.main(tiny_study.task, ["--report", "again.html"]) == 0
    assert f"{report.verdict.label}: " in capsys.readouterr().out
    assert Path("again.html").read_text().startswith("<!doctype html>")
    again = Path("again.md").read_text()
    assert again.startswith("# Study tiny")
    assert again == report.markdown()  # shows the command that made the study
    assert len(create_study("tiny").trials) == trials
    assert tiny_study.main(tiny_study.task, ["--report", "again.md"]) == 2
    assert "--report names an HTML file" in capsys.readouterr().err
    shorter = replace(tiny_study.task(), epochs=99)  # the command need not repeat it
    verdict = Verdict.read(create_study("tiny").user_attrs[kept(VERDICT)])
    assert report_of(create_study("tiny"), shorter, verdict).markdown() == again


def no_server(*unused):
    raise ConnectionError("the server is away")


def test_a_report_is_drawn_again_only_if_something_changed_or_was_lost(report, monkeypatch):
    drawn = []
    html = Report.html
    monkeypatch.setattr(Report, "html", lambda self: drawn.append(self) or html(self))
    study = create_study("tiny")
    assert "Read the report:     http" in search(study, task(), n_trials=8).look
    assert not drawn
    (run,) = MlflowClient(store()).search_runs(["1"], "tags.`role` = 'study'")
    Path(run.info.artifact_uri, "report.md").unlink()
    search(study, task(), n_trials=8)
    assert len(drawn) == 1
    assert Path(run.info.artifact_uri, "report.md").read_text().startswith("# Study tiny")
    search(study, task(), n_trials=9)
    assert len(drawn) == 2
    with monkeypatch.context() as away:
        away.setattr(artifacts, "repository", no_server)
        search(study, task(), n_trials=9)
    assert len(drawn) == 3


TAKEN = ("optuna.journal", "mlflow.db", "checkpoints/r.html", "notes.html", "model.html", "folder.html")


def test_a_report_takes_the_place_of_nothing_else(with_store, capsys):
    assert run("--n-trials", "2") == 0
    Path("notes.html").write_text("mine")
    Path("model.md").write_text("mine")  # `model.html` would be written next to it
    Path("folder.html").mkdir()
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    for place in TAKEN:
        capsys.readouterr()
        assert run("--report", place) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_a_report_is_whole_or_is_the_one_before(report, monkeypatch):
    write_report(report, Path("r.html"))
    before = Path("r.html").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(InputError, match="the report cannot be written: full"):
            write_report(report, Path("r.html"))
    assert Path("r.html").read_bytes() == before
    assert sorted(path.name for path in Path().glob("r.*")) == ["r.html", "r.md"]


def test_a_report_names_every_command_that_made_the_study(with_store, monkeypatch):
    def started(*flags):
        monkeypatch.setattr(sys, "argv", ["tiny_study.py", *flags])
        return tiny_study.main(tiny_study.task, ["--workers", "inline", *flags])

    judged = ("--n-trials", "4", "--finalists", "1", "--seeds", "3")
    assert started("--n-trials", "3") == started(*judged) == started(*judged) == 0
    assert started("--check", "--repair") == started("--report", "r.html") == 0
    told = re.findall(r"\| command \| (.*) \|", Path("r.md").read_text())
    assert told == [f"python tiny_study.py {' '.join(flags)}" for flags in (("--n-trials", "3"), judged)]


def test_a_study_without_a_verdict_has_no_report(with_store, capsys):
    assert tiny_study.main(tiny_study.task, ["--n-trials", "2", "--workers", "inline"]) == 0
    assert tiny_study.main(tiny_study.task, ["--report", "r.html"]) == 2
    assert "has no verdict yet: run it with --finalists" in capsys.readouterr().err
    assert not Path("r.html").exists()


@pytest.mark.usefixtures("without_mlflow")
def test_importance_finds_the_stage_that_decides(caplog):
    optuna.logging.enable_propagation()
    study = create_study("known", storage=None, sampler="random")
    for number in range(60):
        trial = study.ask()
        kind = trial.suggest_categorical("optimizer", ["sgd", "adam"])
        trial.suggest_categorical("dropout", ["none", "dropout"])
        study.tell(trial, (kind == "adam") + 0.01 * (number % 7))
    caplog.clear()
    found = importances(study)
    optuna.logging.disable_propagation()
    assert not caplog.records  # nothing is logged about the studies that it makes
    assert next(iter(found)) == "optimizer"
    mean, low, high = found["optimizer"]
    assert low <= mean <= high
    assert low > found["dropout"][2]


@pytest.mark.usefixtures("without_mlflow")
def test_an_importance_lies_in_its_interval():
    """Also if hardly anything matters, and resamples differ much."""
    study = create_study("noise", storage=None, sampler="random")
    for number in range(30):
        trial = study.ask()
        for stage in ("optimizer", "dropout", "normalization", "schedule"):
            trial.suggest_categorical(stage, ["one", "two", "three"])
        study.tell(trial, float(number * 7 % 11))
    found = importances(study)
    assert len(found) == 4
    assert all(low <= value <= high for value, low, high in found.values())
    values = [value for value, _, _ in found.values()]
    assert values == sorted(values, reverse=True)


@pytest.mark.usefixtures("without_mlflow")
def test_parallel_coordinates_have_a_line_a_trial_and_the_champions_is_red(with_store):
    assert rank_from_worst([3.0, 1.0, 2.0], "max") == [1.0, 0.0, 0.5]
    assert rank_from_worst([3.0, 1.0, 2.0], "min") == [0.0, 1.0, 0.5]
    study = create_study("tiny", storage=None, pruner="none")
    search(study, task(), finalists=0, n_trials=5)
    trials = [trial for trial in study.trials if trial.value is not None and not is_repeat(trial)]
    stages = ["optimizer", "normalization"]
    axes = coordinates(trials, stages, "max", trials[2].number).axes[0]
    assert len(axes.lines) == len(trials)
    assert [line.get_color() for line in axes.lines].count("#c23b22") == 1
    kinds = {(stage, trial.params[stage]) for trial in trials for stage in stages}
    assert sorted(text.get_text() for text in axes.texts) == sorted(kind for _, kind in kinds)
