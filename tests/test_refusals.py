"""Commands are refused early, in one line, and leave nothing behind."""

import json
import os
import shlex
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import tiny_study
from mlflow.tracking import MlflowClient

from lightning_tricks.search import choices, studies
from lightning_tricks.search.sampling import samplers

STUDIES = Path(__file__).parents[1] / "studies"
SLOW = ("torch", "mlflow", "ray", "pytorch_lightning", "optuna", "sklearn", "matplotlib")


@contextmanager
def silence():
    """Yield the address of a server that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        yield f"127.0.0.1:{server.getsockname()[1]}"


def refuse(capsys, *arguments):
    """Run a command that is refused; return its one line."""
    assert tiny_study.main(tiny_study.task, ["--n-trials", "1", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert "secret" not in captured.err
    return captured.err


REFUSED = {
    "tracking server": ("--tracking-uri", "http://u:secret@127.0.0.1:9"),
    "tracking database": ("--tracking-uri", "postgresql+psycopg://u:secret@127.0.0.1:9/x"),
    "tracking folder": ("--tracking-uri", "sqlite:////nowhere/x.db"),
    "tracking scheme": ("--tracking-uri", "ftp://u:secret@x"),
    "half a password": ("--tracking-uri", "http://u:secret/secret@127.0.0.1:9"),
    "ray address": ("--ray-address", "127.0.0.1:9"),
    "no ray address": ("--ray-address", "nowhere"),
    "ray inline": ("--ray-address", "127.0.0.1:9", "--workers", "inline"),
    "no checkpoints": ("--checkpoints", ""),
    "checkpoints in a device": ("--checkpoints", "/dev/null/x"),
    "storage folder": ("--storage", "sqlite:////nowhere/x.db"),
    "storage server": ("--storage", "postgresql+psycopg://u:secret@127.0.0.1:9/x"),
    "storage password": ("--storage", "postgresql+psycopg://u:secret@secret@127.0.0.1:9/x"),
    "nothing to check": ("--check",),
    "nothing to check in a database": ("--check", "--storage", "sqlite:///none.db"),
    "a misplaced url": ("--seed", "postgresql+psycopg://somebody:secret-secret-secret@127.0.0.1:9/x"),
    "a url too many": ("--storag", "postgresql://u:secret secret@h"),
    "space": ("--space", "none.yaml"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_command_leaves_nothing_behind(case, capsys):
    refuse(capsys, *REFUSED[case])
    assert list(Path().iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "form"),
    [
        ("--tracking-uri", "http://{}"),
        ("--tracking-uri", "postgresql+psycopg://u:secret@{}/x"),
        ("--ray-address", "{}"),
        ("--storage", "postgresql+psycopg://u:secret@{}/x"),
    ],
)
def test_a_server_that_never_answers_is_given_up(flag, form, capsys, monkeypatch):
    monkeypatch.setattr("lightning_tricks.tracking.client.ANSWER_SECONDS", 1)
    monkeypatch.setattr("lightning_tricks.workers.ray_address.ANSWER_SECONDS", 1)
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")
    with silence() as address:
        line = refuse(capsys, flag, form.format(address))
    assert "timed out" in line or "timeout expired" in line
    assert list(Path().iterdir()) == []


def test_what_answers_and_is_no_ray_is_told(capsys):
    from threading import Thread

    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = Thread(target=answer)
        thread.start()
        line = refuse(capsys, "--ray-address", f"127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert "the server there is not Ray" in line


@pytest.mark.slow
def test_a_damaged_journal_names_its_line_and_the_remedy_works(capsys, with_store):
    assert tiny_study.main(tiny_study.task, ["--n-trials", "2", "--workers", "inline"]) == 0
    capsys.readouterr()
    journal = Path("optuna.journal")
    lines = journal.read_text().splitlines(keepends=True)
    for damage in ("{broken\n", "[1]\n", "\x00\xff\n"):
        journal.write_text("".join([*lines[:6], damage, *lines[7:]]))
        line = refuse(capsys)
        assert "line 7 of the journal 'optuna.journal' is damaged" in line
    remedy = line.partition("`")[2].partition("`")[0]
    subprocess.run(remedy, shell=True, check=True)
    command = ["--n-trials", "2", "--workers", "inline", "--storage", "mended.journal"]
    assert tiny_study.main(tiny_study.task, command) == 0


@pytest.mark.slow
def test_a_locked_database_is_said_to_be_locked(capsys, with_store):
    Path("optuna.db").touch()
    for name, flag in (("mlflow.db", "--tracking-uri"), ("optuna.db", "--storage")):
        with closing(sqlite3.connect(name, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            line = refuse(capsys, flag, f"sqlite:///{name}?timeout=0.1")
        assert f"sqlite:///{name}?timeout=0.1 is locked by another program" in line


@pytest.mark.slow
def test_a_deleted_experiment_says_the_command_that_restores_it(capsys, with_store, monkeypatch):
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}")
    client.delete_experiment(client.create_experiment("tiny"))
    line = refuse(capsys)
    assert [path.name for path in Path().iterdir()] == ["mlflow.db"]
    variable, *command = shlex.split(line.partition("`")[2].partition("`")[0])
    name, _, value = variable.partition("=")
    monkeypatch.setenv(name, value)
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)
    assert client.get_experiment_by_name("tiny").lifecycle_stage == "active"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--trials", "did you mean --n-trials?"),
        ("--storge=postgresql://u:secret@h", "did you mean --storage?"),
        ("--trackinguri", "did you mean --tracking-uri?"),
        ("--zzz", "--help lists the flags"),
    ],
)
def test_a_mistyped_flag_names_one_that_is_like_it(given, message, capsys):
    assert message in refuse(capsys, given)


SCRIPTS = sorted(
    path.name for path in STUDIES.glob("*.py") if "__main__" in path.read_text(encoding="utf-8")
)


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--typo", "--help"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_mistyped_flag_imports_nothing_that_is_slow(script, flag):
    code = (
        "import json, runpy, sys\n"
        f"sys.argv = [{str(STUDIES / script)!r}, {flag!r}]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: code = end.code\n"
        f"print(json.dumps([code, [name for name in {SLOW} if name in sys.modules]]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(STUDIES), *filter(None, sys.path)])}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    code, imported = json.loads(ended.stdout.splitlines()[-1])
    assert code == (2 if flag == "--typo" else 0), ended.stderr
    assert imported == []


def test_the_environment_stands_in_for_flags_and_is_not_in_the_help(capsys, monkeypatch):
    monkeypatch.setenv("LIGHTNING_TRICKS_STORAGE", "postgresql+psycopg://u:secret@127.0.0.1:9/x")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://u:secret@127.0.0.1:9")
    assert "MLflow cannot be opened" in refuse(capsys)
    assert "storage cannot be opened" in refuse(capsys, "--tracking-uri", "sqlite:///mlflow.db")
    with pytest.raises(SystemExit):
        tiny_study.main(tiny_study.task, ["--help"])
    text = capsys.readouterr().out
    assert "secret" not in text
    assert "LIGHTNING_TRICKS_STORAGE" in text


def test_the_names_on_the_command_line_are_those_that_there_are():
    assert set(choices.SAMPLERS) == set(samplers.SAMPLERS)
    assert set(choices.PRUNERS) == set(studies.PRUNERS)
