"""What a study found: a table for the terminal, and the same in Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.ledger import CHAMPION, Outcome, best_of, trial_of
from lightning_tricks.notebook import html_table
from lightning_tricks.search import finished
from lightning_tricks.task import Task
from lightning_tricks.tricks import describe


@dataclass(frozen=True)
class Summary:
    """The plain, the baseline and the best trial side by side."""

    header: list[str]
    rows: list[list[str]]
    counts: str
    """How many trials ended how, in a line."""
    look: str = ""
    """How to open MLflow on the study."""

    def text(self) -> str:
        """Return the table in aligned columns."""
        table = [self.header, *self.rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(self.header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        return "\n".join([lines[0], "-" * sum(w + 2 for w in widths), *lines[1:], self.counts])

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"Summary({self.counts})"

    def _repr_html_(self) -> str:
        return html_table(self.header, self.rows, self.counts)

    def markdown(self) -> str:
        """Return the table in Markdown."""
        table = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join([*("| " + " | ".join(row) + " |" for row in table), "", self.counts])


def summarize(study: optuna.Study, task: Task) -> Summary:
    """Compare the plain, the baseline and the best trial, with the stages in which they differ."""
    ended = finished(study)
    trials = {
        "plain": trial_of(ended, "plain"),
        "baseline": trial_of(ended, "baseline"),
        "best": best_of(ended, task.mode),
    }
    shown = {name: trial for name, trial in trials.items() if trial is not None}
    records = {}
    for name, trial in shown.items():
        outcome = Outcome.read(trial)
        if outcome is not None:
            records[name] = task.tricks.parse(outcome.record)
    header = ["", *(f"{name} (trial {trial.number})" for name, trial in shown.items())]
    rows = [[task.monitor, *(score_of(trial) for trial in shown.values())]]
    champion = study.user_attrs.get(CHAMPION)
    best = trials["best"]
    if champion and best is not None and champion["trial"] == best.number:
        for name, value in champion["test"].items():
            rows.append([name, *([""] * (len(shown) - 1)), f"{value:.4f}"])
    for stage in task.tricks.model_fields:
        cells = [describe(getattr(records[name], stage)) if name in records else "" for name in shown]
        if len(set(cells)) > 1:
            rows.append([stage, *cells])
    return Summary(header, rows, count(ended))


def score_of(trial: FrozenTrial) -> str:
    """Write a trial's score, or why it has none."""
    outcome = Outcome.read(trial)
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        return f"{trial.value:.4f}"
    score = outcome.score if outcome else None
    after = f", {score:.4f} by then" if score is not None else ""
    return f"{trial.state.name.lower()}{after}"


def count(trials: Sequence[FrozenTrial]) -> str:
    """Say in a line how many trials ended how."""
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    by_state = {
        word: sum(trial.state.name == state for trial in trials) for state, word in names.items()
    }
    parts = [f"{number} {word}" for word, number in by_state.items() if number]
    return f"{len(trials)} trials: {', '.join(parts)}" if parts else "no trial has ended"
