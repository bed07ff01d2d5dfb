"""What a study leaves behind is found in MLflow's UI, served, and used in another project."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
import torch
from browser import chromium, needs_chromium
from judged_study import Sized, backbone, task
from playwright.sync_api import Page
from server import ModelServer, Server
from test_layers import PACKAGE, ROOT

from lightning_tricks import create_study, load_with_tricks, recipe_of_champion, references
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.study_state import StudyState

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("results")]

TESTS = Path(__file__).parent


@dataclass
class Judged:
    """A study with a verdict, as its command left it."""

    uri: str
    """Address of the server that recorded it."""
    link: str
    """The link that it printed."""
    folder: Path

    def study_state(self):
        """Return the study state in Optuna, and the champion's trial."""
        study = create_study("judged", storage=str(self.folder / "optuna.journal"))
        found = StudyState.read(study, task())
        return found, study.trials[found.champion]

    def recipe(self):
        """Return the champion's recipe in Optuna."""
        return Sized.parse(Outcome.read(self.study_state()[1]).recipe)


@pytest.fixture(scope="module")
def judged(tmp_path_factory, empty_store):
    folder = tmp_path_factory.mktemp("judged")
    shutil.copy(empty_store, folder / "server.db")
    server = Server(folder)
    server.start()
    script, flags = TESTS / "judged_study.py", ["--seeds", "3", "--workers", "inline"]
    command = [sys.executable, str(script), *flags, "--tracking-uri", server.uri]
    try:
        printed = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
        (line,) = [line for line in printed.stdout.splitlines() if line.startswith("Look at the trials")]
        yield Judged(server.uri, line.split()[-1], folder)
    finally:
        server.kill()


@pytest.fixture
def page():
    with chromium() as browser:
        yield browser.new_page()


def follow(page: Page, name: str) -> Page:
    """Click on a link that opens another tab; return the tab."""
    with page.expect_popup() as opened:
        page.get_by_role("link", name=name).click()
    return opened.value


def open_parent_run(page: Page) -> None:
    """Click on the link to the study's run; its name appears on a trial's page a moment late."""
    page.locator("a[href*='/runs/']").filter(has_text=re.compile("^judged$")).click()


@needs_chromium
def test_from_the_printed_link_one_click_leads_to_the_champion_two_to_its_model_three_to_the_report(
    judged, page
):
    study_state, champion = judged.study_state()
    headline, role = study_state.verdict.headline(), study_state.role(champion)
    page.goto(judged.link)
    page.get_by_role("link", name=f"{champion.number:03d} · {role}").click()
    page.get_by_text("Parent run", exact=True).wait_for()
    assert f"{role.capitalize()}. val/accuracy {champion.value:.4f} after 8 epochs." in page.inner_text(
        "body"
    )
    assert headline in page.inner_text("body")

    model = follow(page, "Its model of the median seed")
    model.get_by_text("@ champion").wait_for()
    shown = model.inner_text("body")
    assert f"Version {study_state.version}" in shown
    assert headline in shown
    assert f'load_model("models:/judged/{study_state.version}")' in shown

    open_parent_run(page)
    report = follow(page, "The report")
    inside = report.frame_locator("iframe")
    inside.get_by_role("heading", name="Study judged").wait_for()
    assert headline in inside.locator("body").inner_text()


@needs_chromium
def test_the_printed_link_shows_the_search_alone_and_its_verdict_is_three_clicks_away(judged, page):
    page.goto(judged.link)
    page.get_by_text("4 matching runs").wait_for()
    names = page.locator(".ag-row [col-id='attributes.`Run Name`'] a")
    names.nth(3).wait_for()
    assert sorted(name[:3] for name in names.all_inner_texts()) == ["000", "001", "002", "003"]
    assert "· champion" in names.first.inner_text()
    names.first.click()
    open_parent_run(page)
    verdict = follow(page, "the runs of the verdict")
    verdict.get_by_role("link", name="comparison, seed 3").first.wait_for()


def ask(server: ModelServer, inputs: torch.Tensor) -> torch.Tensor:
    """Return a model server's answer to raw inputs."""
    request = urllib.request.Request(
        f"{server.uri}/invocations",
        json.dumps({"inputs": inputs.tolist()}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return torch.tensor(json.load(answer)["predictions"])


def test_champion_and_ensemble_are_served_and_answer_as_they_do_when_they_are_loaded(judged, tmp_path):
    inputs, _ = task().example()
    mlflow.set_tracking_uri(judged.uri)
    uris = [f"models:/judged@{alias}" for alias in ("champion", "ensemble")]
    servers = [ModelServer(tmp_path, uri, judged.uri) for uri in uris]
    try:
        for server in servers:
            server.launch()
        loaded = [mlflow.pytorch.load_model(uri)(inputs) for uri in uris]
        for server, expected in zip(servers, loaded, strict=True):
            server.wait()
            torch.testing.assert_close(ask(server, inputs), expected, atol=1e-5, rtol=0)
            torch.testing.assert_close(ask(server, inputs[:1]), expected[:1], atol=1e-5, rtol=0)
        assert not torch.allclose(*loaded, atol=1e-2)
    finally:
        for server in servers:
            server.kill()


def test_models_of_a_server_are_found_by_a_program_whose_own_mlflow_is_another(judged, tmp_path):
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'other.db'}")
    command = [sys.executable, str(TESTS / "judged_study.py"), "--check", "--tracking-uri", judged.uri]
    checked = subprocess.run(command, cwd=judged.folder, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert recipe_of_champion("judged", judged.uri) == judged.recipe()
    for alias in ("champion", "ensemble"):
        assert load_with_tricks(
            f"models:/judged@{alias}", backbone(judged.recipe()), tracking_uri=judged.uri
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Return the package as it is published."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_its_types_and_its_license_and_nothing_else(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    beside = {name.partition("/")[2] for name in held if not name.startswith("lightning_tricks/")}
    assert beside == {"METADATA", "WHEEL", "RECORD", "licenses/LICENSE"}
    files = [p for p in PACKAGE.rglob("*") if p.is_file() and p.suffix != ".pyc"]
    package = {str(path.relative_to(ROOT)) for path in files}
    assert "lightning_tricks/py.typed" in package
    assert {name for name in held if name.startswith("lightning_tricks/")} == package


@pytest.fixture
def python(wheel, tmp_path):
    """Return the interpreter of a fresh environment: the wheel, plus this environment's packages."""
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=True)
    interpreter = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", interpreter, "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-index", "--no-deps", wheel], check=True, capture_output=True)
    (packages,) = folder.glob("lib/*/site-packages")
    # A line of a .pth file adds a folder, but not the .pth files in it, such as of editable installs.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return interpreter


def test_another_project_with_the_wheel_alone_trains_its_network_with_the_champions_recipe(
    judged, python, tmp_path
):
    script = shutil.copy(TESTS / "separate_project.py", tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, script, "judged", judged.uri],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert Path(found["package"]).is_relative_to(python.parents[1])
    recipe = judged.recipe()
    assert found["types"] == ["Sized"] * 3
    assert found["recipes"] == [recipe.model_dump()] * 3
    assert found["loss"] < found["variance"] / 2
    assert found["references"] == references(recipe) != ""
