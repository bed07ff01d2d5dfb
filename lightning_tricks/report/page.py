"""The report as one HTML file that needs no network, and its twin in Markdown."""

import html
import json
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.metadata import version

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.markdown import escaped
from lightning_tricks.report import facts, figures
from lightning_tricks.report.answer import first_screen
from lightning_tricks.report.blocks import (
    Block,
    Code,
    Drawn,
    Notes,
    Picture,
    Table,
    drawn,
    html_of,
    markdown,
)
from lightning_tricks.report.importance import ENOUGH, importances
from lightning_tricks.report.scores import scores
from lightning_tricks.report.summary import changes_of, reference_of
from lightning_tricks.report.worth import worth
from lightning_tricks.search.keys import IDENTITY
from lightning_tricks.search.outcomes import Outcome, is_repeat
from lightning_tricks.search.studies import finished
from lightning_tricks.selection.ablation import Ablation
from lightning_tricks.selection.result import Verdict
from lightning_tricks.task.task import Task
from lightning_tricks.tricks.papers import papers_of
from lightning_tricks.tricks.recipe import Tricks

MARK = "a report of lightning_tricks"
"""A comment in each report, by which it is known from files that must not be replaced."""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222;
  max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
.answer { font-size: 1.25rem; border-left: 4px solid #c23b22; padding-left: 1rem }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-size: .9rem }
th, td { text-align: left; vertical-align: top;
  padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #ddd }
svg { width: 100%; min-width: 32rem; height: auto }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem;
  margin-bottom: 1rem }
.tiles div { background: #f4f6f8; border-radius: 6px; padding: .5rem .6rem }
.tiles b { display: block; font-size: .85rem }
.tiles div > span, .made { color: #666; font-size: .85rem }
p, li { overflow-wrap: anywhere } nav { display: flex; flex-wrap: wrap; gap: 0 .8rem }
pre { background: #f4f6f8; padding: .6rem .8rem; overflow-wrap: anywhere; white-space: pre-wrap;
  font-size: .85rem }
td { min-width: 5rem } .whole { white-space: nowrap }
@media print { body { margin: 0; max-width: none } svg, table { break-inside: avoid }
  td { overflow-wrap: anywhere } }
"""


class Report:
    """What a study found, section by section.

    Args:
        search: the study of the search.
        reruns: the trials of what followed it.
        task: of the study.
        verdict: of the study.
        commands: that reproduce it, one after the other.
        ablation: of the study, if there is one.
    """

    def __init__(
        self,
        search: optuna.Study,
        reruns: Sequence[FrozenTrial],
        task: Task,
        verdict: Verdict,
        commands: Sequence[str],
        ablation: Ablation | None = None,
    ) -> None:
        self.search, self.reruns, self.task = search, reruns, task
        self.verdict, self.commands, self.ablation = verdict, commands, ablation
        self.epochs = search.user_attrs.get(IDENTITY, {}).get("epochs", task.epochs)
        """Of the study: a report asked for later need not say them again."""
        self.trials = finished(search)
        self.recipe = self._recipe_of(verdict.trial)

    def _recipe_of(self, number: int) -> Tricks:
        """Return the recipe of a trial of the search."""
        outcome = Outcome.read(next(t for t in self.trials if t.number == number))
        assert outcome is not None  # it was trained
        recipe: Tricks = self.task.tricks.parse(outcome.recipe)
        return recipe

    @property
    def answer(self) -> str:
        """The result in a sentence or two."""
        return self.verdict.headline()

    def markdown(self) -> str:
        """Return the report in Markdown, without the figures."""
        parts = [f"# Study {self.search.study_name}", f"> {escaped(self.answer)}", self._made()]
        for title, blocks in self.sections:
            written = [markdown(block) for block in blocks if not isinstance(block, Picture)]
            parts += ([f"## {title}"] if title else []) + written if written else []
        return "\n\n".join([*parts, f"<!-- {MARK} -->"]) + "\n"

    def html(self) -> str:
        """Return the report as one HTML file."""
        first, *others = self.sections
        label, found, rest = self.answer.partition(":")
        body = [
            f"<h1>Study {html.escape(self.search.study_name)}</h1>",
            f'<p class="answer"><b>{html.escape(label + found)}</b>{html.escape(rest)}</p>',
            *map(html_of, first[1]),
            f'<div class="made">{html_of(self._made())}</div>',
            f"<nav>{''.join(_link(at, title) for at, (title, _) in enumerate(others))}</nav>",
        ]
        for at, (title, blocks) in enumerate(others):
            body.append(f'<h2 id="section-{at}">{html.escape(title)}</h2>')
            body += [html_of(block) for block in blocks]
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><!-- {MARK} -->'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self.search.study_name)}</title><style>{STYLE}</style></head>\n"
            f"<body>\n{chr(10).join(body)}\n</body></html>\n"
        )

    def images(self) -> dict[str, str]:
        """Return the figures as SVG, by the names of their files."""
        found: dict[str, str] = {}
        for title, blocks in self.sections:
            name = "_".join(re.findall(r"[a-z]+", title.lower())) or "gain"
            for picture in (block for block in blocks if isinstance(block, Picture)):
                found[f"figures/{len(found) + 1}_{name}.svg"] = picture.svg
        return found

    @cached_property
    def sections(self) -> list[tuple[str, list[Drawn]]]:
        """Titles, and what stands below each."""
        return [(title, list(map(drawn, blocks))) for title, blocks in self._sections()]

    def _sections(self) -> Iterator[tuple[str, list[Block]]]:
        monitor, mode = self.task.monitor, self.task.mode
        cost = facts.duration(3600 * facts.hours([*self.trials, *self.reruns]))
        first = first_screen(self.verdict, self.changes, self.ablation, self.search, cost, self.task)
        yield "", list(first)
        yield "What was asked", [self._question()]
        yield "How good it is", list(scores(self.verdict, monitor))
        yield "Learning curves", [figures.curves(self.reruns, self.verdict, monitor)]
        if self.changes:
            yield f"What {self.verdict.changer} changes", [self._formulas()]
        if self.ablation is not None:
            yield (
                "What each trick is worth",
                list(worth(self.ablation, self.verdict.trial, self.task.monitor)),
            )
        yield "The search", [figures.history(self.trials, monitor, mode), *self._coordinates()]
        yield "Which stages made a difference", list(self._importance())
        yield "Gradient health", [facts.health(self.trials, self.task)]
        yield "What it cost", [facts.cost(self.trials, self.reruns)]
        yield (
            "How to reproduce it",
            [
                facts.versions(self.search, self.commands, self.verdict.budget),
                Code(_written(self.recipe), "json"),
            ],
        )

    def _question(self) -> str:
        return (
            f"Which training tricks does {self.task.name!r} need? Scored by {self.task.monitor} "
            f"({'more' if self.task.mode == 'max' else 'less'} is better), trials of up to "
            f"{self.epochs} epochs, {len(self.trials)} trials in the search."
        )

    @property
    def _new(self) -> Tricks | None:
        """The recipe that is new: the champion's, or the candidate's if that is not confirmed."""
        number = self.verdict.changer_trial
        return None if number is None else self._recipe_of(number)

    @property
    def changes(self) -> list[tuple[str, str, str]]:
        """What the new recipe changes: stage, from, to."""
        reference = reference_of(self.task, self.verdict.incumbent, self.task.reference())
        return [] if self._new is None else changes_of(self._new, reference)

    def _formulas(self) -> Notes:
        """Return formula and papers of what the new recipe changes."""
        lines, new = [], self._new
        for stage, _, to in self.changes:
            trick = getattr(new, stage)
            first = (type(trick).__doc__ or "").strip().splitlines()[0].rstrip(".")
            papers = "; ".join(paper.text() for paper in papers_of(type(trick)))
            lines.append(f"`{stage}` {to}: {first}.{f' {papers}' if papers else ''}")
        return Notes(lines)

    def _made(self) -> str:
        """Say when the study was made, with what, and by which command."""
        ended = max((t.datetime_complete for t in self.trials if t.datetime_complete), default=None)
        date = f"{ended:%Y-%m-%d}, " if ended else ""
        own = f"lightning_tricks {version('lightning_tricks')}"
        return f"{date}{len(self.trials)} trials, {own}: `{'`, then `'.join(self.commands)}`"

    def _coordinates(self) -> Iterator[Block]:
        complete = [t for t in self.trials if t.state == TrialState.COMPLETE and not is_repeat(t)]
        stages = [name for name in type(self.recipe).model_fields if _varies(name, complete)]
        if stages:
            yield "A line for each complete trial, the darker the better, and the champion's in red."
            yield figures.coordinates(complete, stages, self.task.mode, self.verdict.trial)

    def _importance(self) -> Iterator[Block]:
        complete = sum(trial.state == TrialState.COMPLETE for trial in self.trials)
        if complete < ENOUGH:
            yield f"Left out: {complete} trials were complete, and fewer than {ENOUGH} tell little."
            return
        if found := importances(self.search):
            yield figures.importance(found)
            rows = [(n, f"{m:.2f}", f"{low:.2f} to {high:.2f}") for n, (m, low, high) in found.items()]
            yield Table(("stage", "importance", "95% of resamples"), rows)
        else:
            yield "All complete trials have one score: nothing made a difference."


def _written(recipe: Tricks) -> str:
    """Return a recipe as JSON, a line a stage."""
    stages = (f'  "{name}": {json.dumps(held)}' for name, held in recipe.model_dump().items())
    return "{\n" + ",\n".join(stages) + "\n}"


def _link(at: int, title: str) -> str:
    return f'<a href="#section-{at}">{html.escape(title)}</a> '


def _varies(stage: str, trials: Sequence[FrozenTrial]) -> bool:
    """Tell whether trials differ in the kind of a stage."""
    return len({trial.params.get(stage) for trial in trials}) > 1
