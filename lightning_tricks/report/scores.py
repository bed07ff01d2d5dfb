"""The section of a report that says how good the champion is, and how that was found."""

from collections.abc import Iterator

from lightning_tricks.report import figures
from lightning_tricks.report.blocks import Block, Table
from lightning_tricks.scores import test_name
from lightning_tricks.selection.result import WORDS, Verdict

_NOTE = (
    "Intervals of 95%: of validation over seeds, of test over seeds and samples. None of these seeds "
    "took part in choosing. An ensemble averages the models of the first few seeds."
)


def scores(verdict: Verdict, monitor: str) -> Iterator[Block]:
    """Return the scores of a verdict as a table and a figure, and how they came about.

    Args:
        verdict: of the study.
        monitor: the metric that trials are compared by.
    """
    rows = [
        (verdict.title(name), str(row.validation or "—"), str(row.test or "—"))
        for name, row in verdict.rows.items()
    ]
    yield Table(("", monitor, test_name(monitor)), rows)
    yield figures.intervals(verdict, monitor)
    yield _NOTE
    yield _method(verdict)


def _method(verdict: Verdict) -> str:
    gain = verdict.ensemble_gain
    together = "" if gain is None else f"Ensembles: the candidate's gain is {gain}, over samples. "
    samples = "chose it, too" if verdict.gain is not None and verdict.gain.chose else "chose nothing"
    return (
        f"{together}Smallest difference that matters: {verdict.margin:.4f}. Sequential halving chose "
        "one of the finalists by seeds of its own. Other seeds compared it with "
        f"{WORDS[verdict.incumbent]}, on samples that {samples}. The interval of the "
        "gain holds for all looks of all verdicts of this study together, with a probability of 95%."
    )
