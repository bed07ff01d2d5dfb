"""What a study found: the answer, what to change and the scores, for a terminal and in Markdown."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.table import Table

from lightning_tricks.markdown import escaped, table
from lightning_tricks.notebook import html_table
from lightning_tricks.report.columns import WIDEST, aligned, room
from lightning_tricks.scores import test_name
from lightning_tricks.search.keys import REFERENCES
from lightning_tricks.search.outcomes import Outcome, best_of, counted, is_repeat, trial_named, trial_of
from lightning_tricks.search.studies import finished
from lightning_tricks.search.study_state import StudyState
from lightning_tricks.selection.ablation import Ablation
from lightning_tricks.selection.result import ENSEMBLE, YOURS, Row, Verdict, incumbent_of
from lightning_tricks.task.task import Task
from lightning_tricks.tricks.recipe import ModuleTricks, Tricks

VALIDATED = "±: 95% intervals over seeds."
UNFINISHED = "did not finish"
TESTED = "±: 95% intervals; of validation over seeds, of test over seeds and samples."
NO_VERDICT = (
    "These scores took part in choosing, and the best of many trials is partly luck. For a verdict over "
    "fresh seeds: optimize(..., finalists=6), or --finalists 6."
)


@dataclass(frozen=True)
class Summary:
    """The answer of a study, what to change, and the scores."""

    header: list[str]
    """Of the scores: an empty cell, and the metrics."""
    rows: list[list[str]]
    """A recipe, and its scores."""
    counts: str
    """How many trials ended how, in a line."""
    answer: str = ""
    """The result, in a sentence or two."""
    changes: tuple[tuple[str, str, str], ...] = ()
    """What the best recipe that was found changes: stage, from, to."""
    changer: str = ""
    """Name of that recipe."""
    notes: tuple[str, ...] = ()
    """How the answer was found."""
    look: str = ""
    """How to open MLflow on the study."""
    missing: str = ""
    """What MLflow lacks, and what to do; empty if it holds all of the study."""
    verdict: Verdict | None = None
    """What was found over fresh seeds; None for a search alone."""

    def text(self, width: int | None = None) -> str:
        """Return the summary in lines that fit a terminal.

        Args:
            width: in characters; by default that of the terminal, at most `WIDEST`.
        """
        console = Console(file=io.StringIO(), width=WIDEST, color_system=None)
        with console.capture() as shown:
            console.print(self.renderable(width), markup=False, highlight=False)
        return "\n".join(line.rstrip() for line in shown.get().splitlines())

    def renderable(self, width: int | None = None) -> Group:
        """Return what Rich prints: the answer, two tables and the notes."""
        wide = room(width)
        parts: list[str | Table] = [_wrapped(self.answer, wide)] if self.answer else []
        parts += [aligned(header, rows, wide) for header, rows in self._tables if rows]
        parts.append("\n".join(_wrapped(note, wide) for note in (*self.notes, self.counts)))
        return Group(*[item for part in parts for item in ("", part)][1:])

    @property
    def _tables(self) -> list[tuple[Sequence[str], Sequence[Sequence[str]]]]:
        """What to change, and the scores: header and rows."""
        changes = (f"{self.changer} changes", "from", "to"), self.changes
        return [changes, (self.header, self.rows)] if self.changes else [(self.header, self.rows)]

    def __str__(self) -> str:
        return "\n\n".join(part for part in (self.text(), self.look) if part)

    def __repr__(self) -> str:
        return f"Summary({self.counts})"

    def _repr_html_(self) -> str:
        captions = [""] * (len(self._tables) - 1) + [self.counts]
        tables = [html_table(*each, text) for each, text in zip(self._tables, captions, strict=True)]
        return f"<p>{escape(self.answer)}</p>{''.join(tables)}"

    def markdown(self) -> str:
        """Return the tables and the notes in Markdown."""
        tables = (
            table([escaped(cell) for cell in header], [[escaped(cell) for cell in row] for row in rows])
            for header, rows in self._tables
        )
        return "\n\n".join([*tables, *map(escaped, (*self.notes, self.counts))])


def _wrapped(text: str, width: int) -> str:
    """Break a text into lines; a number stays with its interval."""
    whole = text.replace(" ± ", "\u00a0±\u00a0")
    return "\n".join(textwrap.wrap(whole, width, break_on_hyphens=False)).replace("\u00a0", " ")


def summarize(study: optuna.Study, task: Task) -> Summary:
    """Compare plain, the baseline and the best trial of a search, which has no verdict."""
    ended, state = finished(study), StudyState.read(study, task)
    best = best_of(ended, task.mode)
    roles = {role: trial_of(ended, role) for role in reversed(REFERENCES)}
    shown = {trial.number: trial for trial in (*roles.values(), best) if trial is not None}
    titles = [_title(number, {**roles, "best": best}) for number in shown]
    tests = [state.tests.get(number, {}) for number in shown]
    names = list(dict.fromkeys(name for test in tests for name in test))
    rows = [
        [title, score_of(trial), *(f"{test[name]:.4f}" if name in test else "" for name in names)]
        for title, trial, test in zip(titles, shown.values(), tests, strict=True)
    ]
    incumbent = incumbent_of([role for role, trial in roles.items() if trial is not None])
    reference = reference_of(task, incumbent, state.baseline)
    found = Summary(["", task.monitor, *names], rows, count(ended))
    if best is None:
        return found
    return replace(
        found,
        answer=f"Best of the search: {_known(best, roles)}, {task.monitor} {best.value:.4f}.",
        changes=_changes(task, best, reference),
        changer=f"trial {best.number}",
        notes=(NO_VERDICT,),
    )


def _title(number: int, roles: Mapping[str, FrozenTrial | None]) -> str:
    """Return the roles of a trial, and its number."""
    own = [role for role, trial in roles.items() if trial is not None and trial.number == number]
    return f"{' and '.join(own)} (trial {number})"


def _known(trial: FrozenTrial, roles: Mapping[str, FrozenTrial | None]) -> str:
    """Return what a trial is called: its number, or its role."""
    for role in roles:
        if (of := roles[role]) is not None and of.number == trial.number:
            return _title(trial.number, {role: of})
    return f"trial {trial.number}"


def summarize_verdict(
    study: optuna.Study, task: Task, verdict: Verdict, ablation: Ablation | None = None
) -> Summary:
    """Tell the verdict of a study: what the candidate changes, and scores over fresh seeds."""
    ended = finished(study)
    reference = reference_of(task, verdict.incumbent, StudyState.read(study, task).baseline)
    single = {name: row for name, row in verdict.rows.items() if not name.endswith(ENSEMBLE)}
    tested = any(row.test for row in single.values())
    rows = [[verdict.title(name), *_scores(row)][: 3 if tested else 2] for name, row in single.items()]
    told = [
        verdict.method,
        *verdict.dropped_but_higher(task.mode),
        *_ensembles(task, verdict),
        TESTED if tested else VALIDATED,
    ]
    if (later := counted(ended) - verdict.searched) > 0 < verdict.searched:
        told.append(
            f"This verdict is of the first {verdict.searched} trials: {later} came after it. Run with "
            "finalists again for a new one, if they changed who is among the best."
        )
    told += [ablation.headline()] if ablation is not None and ablation.trial == verdict.trial else []
    changer = verdict.changer
    trial = None if changer is None else trial_named(ended, changer)
    return Summary(
        header=["", task.monitor, *([test_name(task.monitor)] if tested else [])],
        rows=rows,
        counts=count(ended),
        answer=verdict.headline(),
        changes=() if trial is None else _changes(task, trial, reference),
        changer=changer or "",
        notes=tuple(note for note in told if note),
        verdict=verdict,
    )


def _scores(row: Row) -> list[str]:
    """Return a row's validation and test score."""
    return [UNFINISHED if row.unfinished else str(row.validation or ""), str(row.test or "")]


def _ensembles(task: Task, verdict: Verdict) -> list[str]:
    """Say how good several models are together: the candidate's and the baseline's."""
    found = []
    for name, row in verdict.rows.items():
        if name.endswith(ENSEMBLE) and (score := row.test or row.validation) is not None:
            found.append(f"{name.removesuffix(ENSEMBLE)} {score}")
    metric = test_name(task.monitor) if any(row.test for row in verdict.rows.values()) else task.monitor
    gain = verdict.ensemble_gain
    found += [] if gain is None else [f"gain {gain} over samples"]
    return [f"Ensembles of {verdict.terms.seeds} models, {metric}: {', '.join(found)}."] if found else []


def reference_of(task: Task, incumbent: str, baseline: Tricks) -> Tricks:
    """Return the recipe to compare with: your module as it is, or else the baseline."""
    if incumbent == YOURS and issubclass(task.tricks, ModuleTricks):
        return task.tricks.yours()
    return baseline


def _changes(task: Task, trial: FrozenTrial, baseline: Tricks) -> tuple[tuple[str, str, str], ...]:
    """Return the stages in which a trial's recipe differs from the baseline: stage, from, to."""
    outcome = Outcome.read(trial)
    if outcome is None:
        return ()
    return tuple(changes_of(task.tricks.parse(outcome.recipe), baseline))


def changes_of(recipe: Tricks, reference: Tricks) -> list[tuple[str, str, str]]:
    """Return what a recipe changes in another: stage, from, to.

    What your module does itself, such as weight decay in its optimizer, is `own` in all stages.
    """
    own = isinstance(reference, ModuleTricks) and reference.untouched
    changed = recipe.differences(reference)
    return [(stage, "own" if own else theirs, mine) for stage, (mine, theirs) in changed.items()]


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
