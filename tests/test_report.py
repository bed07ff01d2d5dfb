"""The table at the end, and the test scores in it."""

import re
from pathlib import Path

import pytest
from conftest import small_data
from test_study import store, task

from lightning_tricks import Space, Tricks, create_study, optimize
from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.report.summary import Summary, summarize
from lightning_tricks.search.keys import TESTS
from lightning_tricks.search.outcomes import best_of

pytestmark = pytest.mark.usefixtures("with_store")

WIDE = "decoupled (norms_and_biases False, strength 0.01372)"
TABLE = Summary(
    ["", "plain (trial 1)", "baseline (trial 0)", "best (trial 10)"],
    [
        ["val/accuracy", "0.9556", "0.9639", "pruned, 0.9806 by then"],
        ["weight_decay", "none", WIDE, WIDE.replace("0.01372", "0.02")],
        ["optimizer", "sgd (lr 0.1)", "adam (lr 0.002, beta1 0.9)", "rmsprop (lr 0.0026, rho 0.9968)"],
        ["network", *["mlp (depth 2, width 128, residual False)"] * 3],
    ],
    "3 trials: 3 complete",
    marked=frozenset({(1, 1), (1, 3), (2, 1), (2, 3)}),
)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_table_fits_the_terminal_and_loses_nothing(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    text = TABLE.text()
    assert max(map(len, text.splitlines())) <= width
    table = "".join(cell for row in TABLE.rows for cell in row)
    rule = next(line for line in text.splitlines() if set(line) == {"-"})
    shown = "".join(text.partition(rule)[2].splitlines()[:-2]).replace("*", "")
    assert sorted(table.replace(" ", "")) == sorted(shown.replace(" ", ""))


def test_the_table_is_no_wider_than_a_hundred_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert max(map(len, TABLE.text().splitlines())) == 100


@pytest.mark.usefixtures("without_mlflow")
def test_a_name_stays_with_its_value():
    for line in TABLE.text(80).splitlines():
        assert not re.search(r"\b(lr|rho|beta1|strength|depth|width)$", line)


@pytest.mark.usefixtures("without_mlflow")
def test_what_differs_from_the_baseline_is_marked():
    text = TABLE.text(100)
    assert re.search(r"^optimizer +\* sgd .* {3}adam .*\* rmsprop", text, re.MULTILINE)
    assert re.search(r"^network +mlp", text, re.MULTILINE)
    assert "* differs from the baseline" in text
    assert "| optimizer | **sgd (lr 0.1)** | adam (lr 0.002, beta1 0.9) | **rmsprop" in TABLE.markdown()


class Counted(InMemoryData):
    """Counts the looks at the test split."""

    looks = 0

    def test_dataloader(self):
        type(self).looks += 1
        return super().test_dataloader()


def counted():
    splits = small_data().splits
    return Counted(splits["train"], splits["validation"], splits["test"], batch_size=8)


def test_the_test_split_is_looked_at_once_for_the_best_the_baseline_and_plain():
    study, chosen = create_study("tiny", storage=None), task(data=counted())
    Counted.looks = 0
    summary = optimize(study, chosen, n_trials=4, progress=False)
    compared = {0, 1, best_of(study.trials, "max").number}
    assert Counted.looks == len(compared)
    assert {int(number) for number in study.user_attrs[TESTS]} == compared
    for name in ("test/accuracy", "test/loss"):
        row = next(row for row in summary.rows if row[0] == name)
        expected = [study.user_attrs[TESTS][re.search(r"\d+", at)[0]][name] for at in summary.header[1:]]
        assert [float(cell) for cell in row[1:]] == pytest.approx(expected, abs=1e-4)
    for path in Path("checkpoints/tiny").glob("*.pt"):
        path.unlink()
    again = optimize(study, chosen, n_trials=4, progress=False, tracking_uri=store("other.db"))
    assert Counted.looks == len(compared)
    assert again.rows == summary.rows


def test_weights_that_were_lost_are_trained_again_once_for_test_and_champion(capsys):
    study = create_study("tiny", storage=None)
    optimize(study, task(), n_trials=2, progress=False)
    tested = study.user_attrs[TESTS]
    study.set_user_attr(TESTS, {})
    for path in Path("checkpoints/tiny").glob("*.pt"):
        path.unlink()
    optimize(study, task(), n_trials=2, tracking_uri=store("other.db"))
    assert capsys.readouterr().err.count("training it again") == 2
    assert study.user_attrs[TESTS] == tested


@pytest.mark.usefixtures("without_mlflow")
def test_marks_compare_with_the_baseline_of_the_study():
    space = Space(Tricks).pin({"normalization": "none", "optimizer": "sgd"})
    study = create_study("tiny", storage=None)
    optimize(study, task(), n_trials=2, space=space, progress=False)
    summary = summarize(study, task())
    shown = {row[0]: at for at, row in enumerate(summary.rows)}
    assert {"normalization", "optimizer"}.isdisjoint(shown)
    plain = next(at for at, title in enumerate(summary.header) if "plain" in title)
    baseline = next(at for at, title in enumerate(summary.header) if "baseline" in title)
    assert (shown["scaling"], plain) in summary.marked
    assert not any(at == baseline for _, at in summary.marked)
