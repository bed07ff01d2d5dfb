"""What a study found: a table for the terminal, and the same in Markdown."""

import io
import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.box import Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_tricks.markdown import escaped, table
from lightning_tricks.notebook import html_table
from lightning_tricks.scores import test_name
from lightning_tricks.search.keys import REFERENCES
from lightning_tricks.search.outcomes import Outcome, best_of, counted, is_repeat, trial_named, trial_of
from lightning_tricks.search.studies import finished
from lightning_tricks.search.study_state import StudyState
from lightning_tricks.selection.ablation import Ablation
from lightning_tricks.selection.result import ENSEMBLE, Verdict
from lightning_tricks.task.task import Task
from lightning_tricks.tricks.recipe import describe

WIDEST = 100
"""A table is as wide as the terminal, and no wider than so many characters."""
NARROWEST = 60
_GAP = 2
_MARK = "* "
_NO_BREAK = "\u00a0"
VALIDATED = "±: 95% intervals over seeds."
TESTED = "±: 95% intervals; of validation over seeds, of test over seeds and samples."
_RULE = Box("    \n    \n -- \n    \n    \n    \n    \n    \n")


@dataclass(frozen=True)
class Summary:
    """The plain, the baseline and the best trial side by side."""

    header: list[str]
    rows: list[list[str]]
    counts: str
    """How many trials ended how, in a line."""
    look: str = ""
    """How to open MLflow on the study."""
    marked: frozenset[tuple[int, int]] = frozenset()
    """Row and column of each cell that differs from the baseline."""
    missing: str = ""
    """What MLflow lacks, and what to do; empty if it holds all of the study."""
    verdict: Verdict | None = None
    """What was found over fresh seeds; None for a search alone."""

    def text(self, width: int | None = None) -> str:
        """Return the table in aligned columns; what differs from the baseline has a star.

        Args:
            width: in characters; by default that of the terminal, at most `WIDEST`.
        """
        console = Console(file=io.StringIO(), width=WIDEST, color_system=None)
        with console.capture() as shown:
            console.print(self.table(width), self.footer, sep="\n", markup=False, highlight=False)
        return "\n".join(line.rstrip() for line in shown.get().splitlines())

    @property
    def footer(self) -> str:
        """What is told below the table."""
        legend = ["* differs from the baseline"] if self.marked else []
        wrapped = [line for text in self.counts.splitlines() for line in textwrap.wrap(text, WIDEST)]
        return "\n".join([*legend, *wrapped])

    def table(self, width: int | None = None) -> Table:
        """Return the table for a terminal, where what differs from the baseline is bold too."""
        terminal = shutil.get_terminal_size((WIDEST, 24)).columns
        room = max(width or min(terminal, WIDEST), NARROWEST)
        body = [
            [cells[0], *(self._mark(row, at) + cell for at, cell in enumerate(cells[1:], 1))]
            for row, cells in enumerate(self.rows)
        ]
        head = [self.header[0], *(" " * len(_MARK) + name for name in self.header[1:])]
        widths = _fit([max(map(len, column)) for column in zip(head, *body, strict=True)], room)
        table = Table(box=_RULE, padding=(0, _GAP - 1, 0, 0), pad_edge=False, show_edge=False)
        for at, (name, wide) in enumerate(zip(head, widths, strict=True)):
            table.add_column(_wrap(name, wide, at), width=wide, no_wrap=True)
        for row, cells in enumerate(body):
            wrapped = (_wrap(c, w, at) for at, (c, w) in enumerate(zip(cells, widths, strict=True)))
            styles = ("bold" if (row, at) in self.marked else "" for at in range(len(cells)))
            table.add_row(*map(Text, wrapped, styles))
        return table

    def _mark(self, row: int, at: int) -> str:
        return _MARK if (row, at) in self.marked else " " * len(_MARK)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"Summary({self.counts})"

    def _repr_html_(self) -> str:
        return html_table(self.header, self.rows, self.counts)

    def markdown(self) -> str:
        """Return the table in Markdown; what differs from the baseline is bold."""
        body = [
            [_in_bold(escaped(cell), (row, at) in self.marked) for at, cell in enumerate(cells)]
            for row, cells in enumerate(self.rows)
        ]
        return f"{table([escaped(cell) for cell in self.header], body)}\n\n{escaped(self.counts)}"


def _in_bold(cell: str, bold: bool) -> str:
    return f"**{cell}**" if bold and cell else cell


def _fit(widths: Sequence[int], room: int) -> list[int]:
    """Narrow the widest columns until a table has room."""
    fitted = list(widths)
    while sum(fitted) + _GAP * (len(fitted) - 1) > room:
        fitted[fitted.index(max(fitted))] -= 1
    return fitted


def _wrap(cell: str, width: int, at: int) -> str:
    """Break a cell into lines, after a comma or before a parenthesis: a name stays with its value."""
    indent = " " * len(_MARK) if at else ""
    pieces = re.split(r"(?<=,) | (?=\()", cell)
    whole = [p.replace(" ", _NO_BREAK) if len(p) + len(indent) <= width else p for p in pieces]
    lines = textwrap.wrap(" ".join(whole), width, subsequent_indent=indent)
    return "\n".join(line.replace(_NO_BREAK, " ") for line in lines)


def summarize(study: optuna.Study, task: Task) -> Summary:
    """Compare the plain, the baseline and the best trial, with the stages in which they differ."""
    ended, study_state = finished(study), StudyState.read(study, task)
    roles = {role: trial_of(ended, role) for role in reversed(REFERENCES)}
    roles["best"] = best_of(ended, task.mode)
    shown = {trial.number: trial for trial in roles.values() if trial is not None}
    titles = {
        number: " and ".join(role for role, trial in roles.items() if trial and trial.number == number)
        for number in shown
    }
    rows = [[task.monitor, *(score_of(trial) for trial in shown.values())]]
    tests = [study_state.tests.get(number, {}) for number in shown]
    names = dict.fromkeys(name for test in tests for name in test)
    rows += [[name, *(f"{test[name]:.4f}" if name in test else "" for test in tests)] for name in names]
    tricks = _tricks(task, shown.values())
    marked = _marked(task, study_state, tricks, len(rows))
    header = ["", *(f"{name} (trial {number})" for number, name in titles.items())]
    return Summary(header, rows + tricks, count(ended), marked=marked)


def summarize_verdict(
    study: optuna.Study, task: Task, verdict: Verdict, ablation: Ablation | None = None
) -> Summary:
    """Compare plain, baseline and candidate over fresh seeds, and their tricks; below, the ensembles."""
    ended, study_state = finished(study), StudyState.read(study, task)
    single = {name: row for name, row in verdict.rows.items() if not name.endswith(ENSEMBLE)}
    shown = {name: trial_named(ended, name) for name in single}
    rows = [[task.monitor, *(str(row.validation or "") for row in single.values())]]
    if tested := any(row.test for row in single.values()):
        tests = [str(row.test or "") for row in single.values()]
        rows.append([test_name(task.monitor), *tests])
    tricks = _tricks(task, [trial for trial in shown.values() if trial is not None])
    marked = _marked(task, study_state, tricks, len(rows))
    header = ["", *map(verdict.title, single)]
    told = [verdict.headline(), *_ensembles(task, verdict), TESTED if tested else VALIDATED]
    if (later := counted(ended) - verdict.searched) > 0 < verdict.searched:
        told.append(f"This verdict is of the first {verdict.searched} trials: {later} came after it.")
    told += [ablation.headline()] if ablation is not None and ablation.trial == verdict.trial else []
    counts = "\n".join([*told, count(ended)])
    return Summary(header, rows + tricks, counts, marked=marked, verdict=verdict)


def _ensembles(task: Task, verdict: Verdict) -> list[str]:
    """Say how good several models are together: the candidate's beside the baseline's."""
    found = []
    for name, row in verdict.rows.items():
        if name.endswith(ENSEMBLE) and (score := row.test or row.validation) is not None:
            found.append(f"{name.removesuffix(ENSEMBLE)} {score}")
    metric = test_name(task.monitor) if any(row.test for row in verdict.rows.values()) else task.monitor
    gain = verdict.ensemble_gain
    found += [] if gain is None else [f"gain {gain} over samples"]
    return [f"Ensembles of {verdict.terms.seeds} models, {metric}: {', '.join(found)}."] if found else []


def _marked(
    task: Task, study_state: StudyState, tricks: list[list[str]], above: int
) -> frozenset[tuple[int, int]]:
    """Return the cells that differ from the baseline, below so many rows of scores."""
    baseline = {
        stage: describe(getattr(study_state.baseline, stage)) for stage in task.tricks.model_fields
    }
    return frozenset(
        (row, at)
        for row, cells in enumerate(tricks, above)
        for at, cell in enumerate(cells)
        if at and cell not in ("", baseline[cells[0]])
    )


def _tricks(task: Task, trials: Iterable[FrozenTrial]) -> list[list[str]]:
    """Return a row for each stage in which trials differ."""
    outcomes = [Outcome.read(trial) for trial in trials]
    recipes = [None if outcome is None else task.tricks.parse(outcome.recipe) for outcome in outcomes]
    rows = [
        [stage, *("" if recipe is None else describe(getattr(recipe, stage)) for recipe in recipes)]
        for stage in task.tricks.model_fields
    ]
    return [row for row in rows if len(set(row[1:])) > 1]


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
    own = [trial for trial in trials if not is_repeat(trial)]
    by_state = {word: sum(trial.state.name == state for trial in own) for state, word in names.items()}
    parts = [f"{number} {word}" for word, number in by_state.items() if number]
    repeats = len(trials) - len(own)
    more = f"; {repeats} more repeated a recipe" if repeats else ""
    return f"{len(own)} trials: {', '.join(parts)}{more}" if parts else "no trial has ended"
