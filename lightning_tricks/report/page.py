"""The report as one HTML file that needs no network, and its twin in Markdown."""

import html
import platform
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version

import optuna
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.markdown import escaped
from lightning_tricks.report import figures
from lightning_tricks.report.blocks import Block, Table, html_of, markdown
from lightning_tricks.report.importance import ENOUGH, importances
from lightning_tricks.report.scores import scores
from lightning_tricks.report.worth import worth
from lightning_tricks.search.keys import FUSE, IDENTITY
from lightning_tricks.search.outcomes import Outcome, is_repeat
from lightning_tricks.search.studies import finished
from lightning_tricks.selection.ablation import Ablation
from lightning_tricks.selection.result import Verdict
from lightning_tricks.task.task import Task
from lightning_tricks.tricks.papers import papers_of
from lightning_tricks.tricks.recipe import Tricks, describe

MARK = "a report of lightning_tricks"
"""A comment in each report, by which it is known from files that must not be replaced."""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222;
  max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
.answer { font-size: 1.15rem; border-left: 4px solid #c23b22; padding-left: 1rem }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-size: .9rem }
th, td { text-align: left; vertical-align: top;
  padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #ddd }
svg { width: 100%; height: auto }
@media print { body { margin: 0; max-width: none } svg, table { break-inside: avoid } }
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
        parts = [f"# Study {self.search.study_name}", f"> {escaped(self.answer)}"]
        for title, blocks in self._sections():
            written = [markdown(block) for block in blocks if not isinstance(block, Figure)]
            parts += [f"## {title}", *written] if written else []
        return "\n\n".join([*parts, f"<!-- {MARK} -->"]) + "\n"

    def html(self) -> str:
        """Return the report as one HTML file."""
        body = [
            f"<h1>Study {html.escape(self.search.study_name)}</h1>",
            f'<p class="answer">{html.escape(self.answer)}</p>',
        ]
        for title, blocks in self._sections():
            body.append(f"<h2>{html.escape(title)}</h2>")
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
        for title, blocks in self._sections():
            name = "_".join(re.findall(r"[a-z]+", title.lower()))
            for figure in (block for block in blocks if isinstance(block, Figure)):
                found[f"figures/{len(found) + 1}_{name}.svg"] = figures.svg(figure)
        return found

    def _sections(self) -> Iterator[tuple[str, list[Block]]]:
        yield "What was asked", [self._question()]
        monitor, mode = self.task.monitor, self.task.mode
        yield "How good it is", list(scores(self.verdict, monitor))
        yield "Learning curves", [figures.curves(self.reruns, self.verdict, monitor)]
        yield "The champion's tricks", [self._tricks(self.recipe)]
        if (rival := self.verdict.rival) is not None:
            yield f"The tricks of {self.verdict.candidate}", [self._tricks(self._recipe_of(rival))]
        if self.ablation is not None:
            yield (
                "What each trick is worth",
                list(worth(self.ablation, self.verdict.trial, self.task.monitor)),
            )
        yield "The search", [figures.history(self.trials, monitor, mode), *self._coordinates()]
        yield "Which stages made a difference", list(self._importance())
        yield "Gradient health", [self._health()]
        yield "What it cost", [self._cost()]
        yield "How to reproduce it", [self._versions()]

    def _question(self) -> str:
        return (
            f"Which training tricks does {self.task.name!r} need? Scored by {self.task.monitor} "
            f"({'more' if self.task.mode == 'max' else 'less'} is better), trials of up to "
            f"{self.epochs} epochs, {len(self.trials)} trials in the search."
        )

    def _tricks(self, recipe: Tricks) -> Table:
        changed = recipe.differences(self.task.reference())
        rows = []
        for stage in type(recipe).model_fields:
            trick = getattr(recipe, stage)
            known = hasattr(type(trick), "neutral") and not trick.neutral
            formula = (type(trick).__doc__ or "").strip().splitlines()[0] if known else ""
            papers = "; ".join(paper.text() for paper in papers_of(type(trick))) if known else ""
            rows.append((stage, describe(trick), changed.get(stage, ("", ""))[1], formula, papers))
        header = ("stage", "trick", "instead of the baseline's", "formula", "paper")
        return Table(header, rows)

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

    def _health(self) -> Table:
        ratios: dict[tuple[str, str], list[float]] = {}
        for trial in self.trials:
            outcome = Outcome.read(trial)
            if outcome is None or not outcome.epochs:
                continue
            recipe = self.task.tricks.parse(outcome.recipe)
            ratio = outcome.epochs[0]["metrics"].get("gradient/first_to_last")
            if ratio is not None:
                place = (recipe.initialization.kind, recipe.normalization.kind)
                ratios.setdefault(place, []).append(ratio)
        rows = [
            (init, norm, str(len(values)), f"{min(values):.3g} to {max(values):.3g}")
            for (init, norm), values in sorted(ratios.items(), key=lambda item: min(item[1]))
        ]
        header = ("initialization", "normalization", "trials", "gradient of first by last layer")
        return Table(header, rows)

    def _cost(self) -> Table:
        ended = [(o, t) for t in self.trials if (o := Outcome.read(t)) is not None]
        again = [o for t in self.reruns if (o := Outcome.read(t)) is not None]
        spent = [*(o for o, _ in ended), *again]
        seconds = sum(o.seconds for o in spent if o.duplicate_of is None)
        pruned = [o for o, t in ended if t.state == TrialState.PRUNED]
        full = [o.seconds for o, t in ended if t.state == TrialState.COMPLETE and o.duplicate_of is None]
        usual = sum(full) / len(full) if full else 0.0
        saved = sum(max(usual - o.seconds, 0.0) for o in pruned)
        states = [t.state for t in self.trials]
        rows = [
            ("device hours", f"{seconds / 3600:.3f}"),
            ("trials complete", str(states.count(TrialState.COMPLETE))),
            ("trials pruned", f"{len(pruned)}, which saved about {saved / 3600:.3f} hours"),
            ("trials failed", str(states.count(TrialState.FAIL))),
            ("trainings after the search", str(len(self.reruns))),
        ]
        return Table(("what", "how much"), rows)

    def _versions(self) -> Table:
        packages = ("lightning_tricks", "torch", "pytorch-lightning", "optuna", "mlflow")
        rows = [
            *(("command", command) for command in self.commands),
            ("trainings of the verdict", f"up to {self.verdict.budget}"),
        ]
        if (found := self.search.user_attrs.get(FUSE)) is not None:
            rows.append(("trainings done as one", f"up to {found['best']}, which was measured"))
        rows += [(name, version(name)) for name in packages]
        return Table(("what", "which"), [*rows, ("python", platform.python_version())])


def _varies(stage: str, trials: Sequence[FrozenTrial]) -> bool:
    """Tell whether trials differ in the kind of a stage."""
    return len({trial.params.get(stage) for trial in trials}) > 1
