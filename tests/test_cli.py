"""Every bad input on the command line gives one clear line and exit code 2, and loses nothing."""

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest
import tiny_study
from conftest import mlp, samples, small_data

from lightning_tricks import InMemoryData, Task, main
from lightning_tricks.run.arguments import _open_streams

BAD = {
    "unknown flag": (["--trials", "3"], "unrecognized arguments: --trials"),
    "unknown sampler": (["--sampler", "tea"], "invalid choice: 'tea'"),
    "unknown pruner": (["--pruner", "x"], "invalid choice: 'x'"),
    "zero trials": (["--n-trials", "0"], "must be a whole number from 1"),
    "negative trials": (["--n-trials", "-3"], "must be a whole number from 1"),
    "nan trials": (["--n-trials", "nan"], "must be a whole number from 1"),
    "huge trials": (["--n-trials", "9" * 5000], "must be a whole number from 1"),
    "other digits": (["--n-trials", "٣"], "must be a whole number from 1"),
    "fraction of epochs": (["--epochs", "1.5"], "must be a whole number from 1"),
    "negative seed": (["--seed", "-1"], "whole number"),
    "nan timeout": (["--timeout", "nan"], "must be a number above 0"),
    "negative timeout": (["--timeout", "-1"], "must be a number above 0"),
    "odd name": (["--study-name", "a/b"], "a name must be"),
    "climbing name": (["--study-name", ".."], "a name must be"),
    "no space file": (["--space", "none.yaml"], "cannot be read"),
    "storage scheme": (["--storage", "nosql://x"], "storage cannot be opened"),
    "storage driver": (["--storage", "postgresql://u:secret@127.0.0.1:1/x"], "cannot be opened"),
    "storage folder": (["--storage", "/nowhere/optuna.journal"], "must be the path of a journal"),
    "storage is a folder": (["--storage", "."], "must be the path of a journal"),
    "storage is a device": (["--storage", "/dev/full"], "must be the path of a journal"),
    "sqlite folder": (["--storage", "sqlite:////nowhere/x.db"], "storage cannot be opened"),
    "garbage journal": (["--storage", "garbage"], "storage cannot be opened"),
    "server down": (["--tracking-uri", "http://127.0.0.1:9"], "MLflow cannot be opened"),
    "tracking scheme": (["--tracking-uri", "ftp://x"], "MLflow cannot be opened"),
    "no tracking": (["--tracking-uri", ""], "must be one line of text"),
    "two lines": (["--tracking-uri", "http://a\nb"], "must be one line of text"),
    "tracking folder": (["--tracking-uri", "sqlite:////tmp"], "MLflow cannot be opened"),
    "not a database": (["--tracking-uri", "sqlite:///garbage"], "MLflow cannot be opened"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line_and_code_2(case, capsys):
    Path("garbage").write_text("this is neither a journal\nnor a database\n" * 50)
    arguments, message = BAD[case]
    assert tiny_study.main(tiny_study.task, arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert "secret" not in lines[0]
    assert len(lines[0]) < 500


TASKS = {
    "one class": (
        lambda: Task("t", InMemoryData(samples(9, 6, classes=1), samples(9, 6)), lambda t: mlp()),
        "at least two classes",
    ),
    "nan": (
        lambda: Task("t", InMemoryData.from_arrays([[float("nan")]] * 20, [0, 1] * 10), lambda t: mlp()),
        "must be finite",
    ),
    "shape": (lambda: Task("t", small_data(5), lambda t: mlp()), "does not take inputs of shape"),
    "monitor": (lambda: Task("t", small_data(), lambda t: mlp(), monitor="val/x"), "never logged"),
}


@pytest.mark.parametrize("case", TASKS)
def test_a_wrong_task_is_one_clear_line_and_code_2(case, capsys):
    make, message = TASKS[case]
    assert tiny_study.main(make, ["--n-trials", "1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not Path("mlflow.db").exists()


def test_a_file_in_the_place_of_the_checkpoints_is_told_before_training(capsys):
    Path("checkpoints").write_text("")
    assert tiny_study.main(tiny_study.task, ["--n-trials", "1"]) == 2
    assert "checkpoints cannot be kept" in capsys.readouterr().err


def test_help_lists_the_flags(capsys):
    with pytest.raises(SystemExit) as ended:
        tiny_study.main(tiny_study.task, ["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    flags = "n-trials epochs study-name storage tracking-uri sampler pruner seed space timeout"
    for flag in flags.split():
        assert f"--{flag}" in text


def test_help_has_examples_and_exit_codes_and_no_default_that_is_none(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        tiny_study.main(tiny_study.task, ["--help"])
    text = capsys.readouterr().out
    assert "None" not in text
    assert "False" not in text
    assert not re.search(r"\(default[^)]*\)\s+\(default", text)
    assert "(default: the task's)" in text
    assert "(default: 40, or what --budget affords)" in " ".join(text.split())
    assert re.search(r"^examples:\n(  \S.*\n){4,}", text, re.MULTILINE)
    codes = re.findall(r"^  (\d+) +\S", text.partition("exit codes:")[2], re.MULTILINE)
    assert codes == ["0", "1", "2", "3", "4", "5", "130"]
    assert max(map(len, text.splitlines())) <= 80


def test_the_end_is_a_table_and_the_way_to_look_at_it(capsys):
    assert tiny_study.main(tiny_study.task, ["--n-trials", "3", "--study-name", "mine"]) == 0
    captured = capsys.readouterr()
    for word in (
        "plain (trial 1)",
        "baseline",
        "best (trial",
        "Best of the search: ",
        "(trial 0)",
        "test/accuracy",
    ):
        assert word in captured.out
    assert "mlflow ui --backend-store-uri sqlite:///mlflow.db" in captured.out
    assert "viewStateShareKey=trials" in captured.out
    assert "3/3" in captured.err


@pytest.mark.usefixtures("without_mlflow")
def test_a_flag_of_a_script_may_be_called_like_an_argument_that_has_none():
    given = []

    def make(observers):
        given.append(observers)
        return tiny_study.task()

    flags = {"--observers": "who watches"}
    arguments = ["--observers", "two", "--n-trials", "1", "--finalists", "0", "--workers", "inline"]
    assert main(make, arguments, flags=flags) == 0
    assert given == ["two"]


def test_a_space_file_pins_what_is_searched(capsys):
    Path("space.yaml").write_text("pin: {optimizer: adam, normalization: none}\n")
    assert tiny_study.main(tiny_study.task, ["--n-trials", "3", "--space", "space.yaml"]) == 0
    assert "sgd" not in capsys.readouterr().out


def test_an_output_that_cannot_be_written_to_is_one_line(capsys, monkeypatch):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert tiny_study.main(tiny_study.task, ["--n-trials", "2", "--tracking-uri", "none"]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: the standard output cannot be written to")
        sys.stdout.close()
        with contextlib.suppress(OSError):
            full.close()


def test_closed_streams_and_those_of_few_characters_take_what_is_written(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    monkeypatch.setattr(sys, "stderr", None)
    _open_streams()
    sys.stdout.write("0.5 ± 0.1")
    sys.stdout.flush()
    assert written.getvalue() == b"0.5 ? 0.1"
    sys.stderr.write("±")
    sys.stderr.close()
