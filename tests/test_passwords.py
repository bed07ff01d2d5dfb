"""No password is in what a study leaves behind or prints: real servers, and all that they keep."""

import re
import sys
from pathlib import Path

import pytest
import tiny_study
from server import Server
from test_outages import running

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("passwords")]

PASSWORD = "hidden/horse:battery"
ENCODED = "hidden%2Fhorse%3Abattery"


@pytest.fixture(scope="module")
def database():
    with running(PASSWORD) as made:
        yield made


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("server"))
    made.start()
    yield made
    made.kill()


@pytest.fixture
def run(monkeypatch, capfd):
    """Run a study as a command; return its exit code and its output."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["tiny_study.py", "--workers", "inline", *arguments])
        code = tiny_study.main(tiny_study.task, n_trials=2)
        return code, "".join(capfd.readouterr())

    return command


def kept(*folders):
    """Return the contents of all files in some folders."""
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "summary.md" for path in paths)
    return b"".join(path.read_bytes() for path in paths)


def test_passwords_of_flags_are_kept_nowhere(database, server, run):
    storage = database.url.replace("tricks@", f"tricks:{ENCODED}@")
    address = server.uri.replace("//", f"//somebody:{ENCODED}@")
    code, printed = run("--storage", storage, "--tracking-uri", address)
    assert code == 0, printed
    assert f"http://somebody:***@127.0.0.1:{server.port}" in printed
    content = kept(server.folder, Path())
    assert not re.search(b"hidden|horse", content + printed.encode())
    assert b"postgresql+psycopg://tricks:***@" in content  # the command that reproduces the study


def test_passwords_of_the_environment_are_kept_nowhere(database, server, run, monkeypatch):
    monkeypatch.setenv("LIGHTNING_TRICKS_STORAGE", database.url)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    monkeypatch.setenv("PGPASSWORD", "hidden horse")
    code, printed = run("--study-name", "other")
    assert (code, printed.count("\n")) == (2, 1), printed
    assert "password authentication failed" in printed
    assert "hidden" not in printed
    assert list(Path().iterdir()) == []
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    code, printed = run("--study-name", "other")
    assert code == 0, printed
    assert f"{server.uri}/#/experiments/" in printed
    assert not re.search(b"hidden|horse", kept(server.folder, Path()) + printed.encode())
