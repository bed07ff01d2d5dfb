"""The final table, and its test scores."""

import re
from pathlib import Path

import pytest
from conftest import optimize, small_data
from test_study import store, task

from lightning_tricks import ModuleTricks, Space, Tricks, create_study
from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.report.summary import Summary, changes_of
from lightning_tricks.search.keys import TESTS
from lightning_tricks.search.outcomes import Outcome, best_of
from lightning_tricks.search.study_state import StudyState

pytestmark = pytest.mark.usefixtures("with_store")

WIDE = "decoupled (norms_and_biases False, strength 0.01372)"
SUMMARY = Summary(
    header=["", "val/accuracy", "test/accuracy"],
    rows=[
        ["yours", "0.9556 ± 0.0123", "0.9612 ± 0.0123"],
        ["trial 10 (champion)", "0.9806 ± 0.0051", "0.9712 ± 0.0049"],
    ],
    counts="3 trials: 3 complete",
    answer="Confirmed gain: +0.0100 ± 0.0051 test/accuracy over the baseline, with trial 10. Use it.",
    changes=(
        ("weight_decay", "none", WIDE),
        ("optimizer", "adam (lr 0.002, beta1 0.9)", "rmsprop (lr 0.0026, rho 0.9968)"),
        ("network", "mlp (depth 2, width 128, residual False)", "mlp (depth 3, residual True)"),
    ),
    changer="trial 10",
    notes=("The gain is over 5 fresh seeds and 360 samples that took no part in choosing.",),
)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_summary_fits_the_terminal_and_loses_nothing(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    shown = SUMMARY.text()
    assert max(map(len, shown.splitlines())) <= width
    cells = [cell for row in (*SUMMARY.rows, *SUMMARY.changes) for cell in row]
    whole = "".join([SUMMARY.answer, "trial 10 changesfromto", *SUMMARY.header, *cells])
    whole += "".join([*SUMMARY.notes, SUMMARY.counts])
    assert sorted(whole.replace(" ", "").replace("-", "")) == sorted(
        shown.replace("\n", "").replace(" ", "").replace("-", "")
    )


def test_all_that_a_module_does_itself_is_its_own():
    changed = changes_of(ModuleTricks(), ModuleTricks.yours())
    assert {stage: theirs for stage, theirs, _ in changed} == dict.fromkeys(
        ("weight_decay", "optimizer", "clipping", "schedule"), "own"
    )
    assert changes_of(Tricks(dropout="dropout"), Tricks()) == [("dropout", "none", "dropout (p 0.1)")]


def test_the_summary_is_no_wider_than_a_hundred_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert 80 < max(map(len, SUMMARY.text().splitlines())) <= 100


@pytest.mark.parametrize("width", [60, 80])
def test_a_name_stays_with_its_value_and_a_score_with_its_interval(width):
    for line in SUMMARY.text(width).splitlines():
        assert not re.search(r"\b(lr|rho|beta1|strength|depth|width|residual)$|±$|^±", line.strip())


def test_the_answer_comes_first_and_then_what_to_change():
    text = SUMMARY.text(100)
    assert text.startswith(SUMMARY.answer)
    assert text.index("trial 10 changes") < text.index("val/accuracy") < text.index("fresh seeds and")
    assert re.search(r"^optimizer +adam .* rmsprop", text, re.MULTILINE)
    assert "| optimizer | adam (lr 0.002, beta1 0.9) | rmsprop" in SUMMARY.markdown()


class Counted(InMemoryData):
    """Counts how often the test split is read."""

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
        at = summary.header.index(name)
        for row in summary.rows:
            expected = study.user_attrs[TESTS][re.search(r"\d+", row[0])[0]][name]
            assert float(row[at]) == pytest.approx(expected, abs=1e-4)
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
def test_what_to_change_is_told_from_the_baseline_of_the_study():
    space = Space(Tricks).pin({"normalization": "none", "optimizer": "sgd"})
    study = create_study("tiny", storage=None)
    summary = optimize(study, task(), n_trials=4, space=space, progress=False)
    best = best_of(study.trials, "max")
    assert re.fullmatch(
        rf"Best of the search: .*trial {best.number}\)?, val/accuracy {best.value:.4f}\.", summary.answer
    )
    assert any(f"(trial {best.number})" in row[0] for row in summary.rows)
    recipe = Tricks.parse(Outcome.read(best).recipe)
    changed = recipe.differences(StudyState.read(study, task()).baseline)
    assert summary.changes == tuple((stage, old, new) for stage, (new, old) in changed.items())
    assert "--finalists 6" in summary.text().replace("\n", " ")
