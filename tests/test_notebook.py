"""What Python and a notebook show of a user's objects."""

import re
from dataclasses import replace

import optuna
import pytest
from conftest import mlp, small_data

from lightning_tricks import Float, InMemoryData, Space, Split, Summary, Task, Trick, Tricks
from lightning_tricks.report.summary import summarize
from lightning_tricks.space.domains import Choice, OneMinus
from lightning_tricks.tricks.clipping import NormClipping

TASK = Task("pictures", small_data(), lambda tricks: mlp(), epochs=7)


def test_data_are_written_in_a_line():
    text = "InMemoryData(24 train, 12 validation, 12 test samples of shape (6,), 3 outputs)"
    assert repr(TASK.data) == str(TASK.data) == text
    train, validation, _ = TASK.data.splits.values()
    assert "test" not in str(InMemoryData(Split(*train), Split(*validation)))


def test_a_task_is_written_in_a_line():
    assert str(TASK) == f"Task('pictures', {TASK.data}, Tricks, 7 epochs, max val/accuracy)"


def test_a_space_is_written_as_it_was_made():
    space = Space(Tricks).pin({"optimizer": "adam"})
    space = space.narrow({"clipping": ["none", "norm"], "optimizer.adam.lr": Float(0.1, 1)})
    assert repr(Space(Tricks)) == "Space(Tricks)"
    assert eval(repr(space)).describe() == space.describe()
    assert {Choice, OneMinus}  # names allowed in the text


@pytest.fixture
def summary():
    return Summary(["", "<b>loss</b>"], [["best", "0.5 & more"]], "2 trials: 2 complete")


def test_a_summary_prints_as_its_table(summary):
    assert str(summary) == summary.text()
    assert str(replace(summary, look="Start MLflow: …")) == f"{summary.text()}\n\nStart MLflow: …"
    assert repr(summary) == "Summary(2 trials: 2 complete)"
    assert repr(summarize(optuna.create_study(), TASK)) == "Summary(no trial has ended)"


def cells(html):
    """Return the text of each row's cells, as a browser shows them."""
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", html)]


def test_a_notebook_shows_tables(summary):
    recipe = dict(row[0:2] for row in cells(Tricks(optimizer="sgd")._repr_html_())[1:])
    assert recipe["optimizer"] == "sgd (lr 0.1)"
    assert list(recipe) == list(Tricks.model_fields)
    space = Space(Tricks).pin({"optimizer": "adam", "clipping": NormClipping()})
    rows = dict(cells(space._repr_html_())[1:])
    assert "adam" in rows["optimizer"]
    assert "0.03" in rows["optimizer.adam.lr"]
    assert "optimizer.sgd.lr" not in rows
    assert cells(summary._repr_html_())[1] == ["best", "0.5 &amp; more"]


def test_a_notebook_shows_no_html_of_ours_as_its_own(summary):
    class Script(Trick):
        text: str = "<script>"

    shown = [summary._repr_html_(), Space(Script).pin({"text": "<script>1</script>"})._repr_html_()]
    shown.append(type("M", (Tricks,), {"__annotations__": {"t": str}, "t": "<script>"})()._repr_html_())
    for html in shown:
        assert "<script>" not in html
        assert "<b>" not in html
        assert "&lt;" in html
