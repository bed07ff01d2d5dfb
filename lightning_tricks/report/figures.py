"""The figures of a report, as SVG without any reference outside."""

import io
import re
from collections.abc import Iterable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.scores import Mode, best
from lightning_tricks.search.outcomes import DRAW, ENTRY, PHASE, REPORT, ROLE, Outcome
from lightning_tricks.selection.intervals import mean_interval
from lightning_tricks.selection.result import Verdict

WIDTH, HEIGHT = 7.0, 3.2
"""Inches."""
COLORS = {"plain": "#888888", "baseline": "#1f6fb4", "champion": "#c23b22", "ensemble": "#7a3b9a"}


def svg(figure: Figure) -> str:
    """Return a figure as an SVG element, which scales with the page."""
    axes, stream = figure.axes[0], io.StringIO()
    # Names inside of it are made from this: those of two figures on a page must not be the same.
    salt = f"{axes.get_xlabel()} {axes.get_ylabel()} {figure.get_figheight()}"
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    element = stream.getvalue()
    element = element[element.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    for size in ("width", "height"):  # the page says how wide it is
        element = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", element, count=1)
    return element


def _axes(xlabel: str, ylabel: str, height: float = HEIGHT) -> tuple[Figure, "mpl.axes.Axes"]:
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def history(trials: Iterable[FrozenTrial], monitor: str, mode: Mode) -> Figure:
    """Show the score of each trial in the order of the search, and the best so far."""
    figure, axes = _axes("trial", monitor)
    complete = [t for t in trials if t.state == TrialState.COMPLETE and t.value is not None]
    numbers = [trial.number for trial in complete]
    scores = [float(trial.value or 0.0) for trial in complete]
    axes.plot(numbers, scores, "o", color="#1f6fb4", alpha=0.6, label="complete")
    so_far = [best(scores[: at + 1], mode) for at in range(len(scores))]
    axes.step(numbers, so_far, where="post", color="#c23b22", label="best so far")
    for trial in complete:
        if role := trial.user_attrs.get(ROLE):
            axes.annotate(role, (trial.number, float(trial.value or 0.0)), fontsize=8)
    axes.legend(frameon=False)
    return figure


def curves(reports: Iterable[FrozenTrial], verdict: Verdict, monitor: str) -> Figure:
    """Show the learning curves of the report's records: mean and 95 % interval over seeds."""
    figure, axes = _axes("epoch", monitor)
    of_row = {"champion": verdict.champion.name, "baseline": "baseline", "plain": "plain"}
    found: dict[str, list[Sequence[float]]] = {}
    for trial in sorted(reports, key=lambda t: int(t.user_attrs.get(DRAW, 0))):
        outcome = Outcome.read(trial)
        if outcome is not None and trial.user_attrs.get(PHASE) == REPORT and outcome.epochs:
            values = [epoch["metrics"].get(monitor, epoch["score"]) for epoch in outcome.epochs]
            found.setdefault(trial.user_attrs[ENTRY], []).append(values)
    for row, entry in of_row.items():
        runs = [run for run in found.get(entry, []) if len(run) == max(map(len, found[entry]))]
        if runs:
            steps = [mean_interval([run[at] for run in runs]) for at in range(len(runs[0]))]
            epochs = np.arange(1, len(steps) + 1)
            axes.plot(epochs, [step.mean for step in steps], color=COLORS[row], label=row)
            low = [step.mean if step.low is None else step.low for step in steps]
            high = [step.mean if step.high is None else step.high for step in steps]
            axes.fill_between(epochs, low, high, color=COLORS[row], alpha=0.15)
    axes.legend(frameon=False)
    return figure


def intervals(verdict: Verdict, monitor: str) -> Figure:
    """Show the scores of the verdict's rows with their intervals, validation and test."""
    figure, axes = _axes(monitor.partition("/")[2], "", height=0.6 + 0.5 * len(verdict.rows))
    for at, (row, held) in enumerate(reversed(list(verdict.rows.items()))):
        pairs = ((held.validation, 0.12, "o"), (held.test, -0.12, "s"))
        for found, shift, mark in pairs:
            if found is None:
                continue
            low = found.mean if found.low is None else found.low
            high = found.mean if found.high is None else found.high
            axes.plot([low, high], [at + shift] * 2, color=COLORS[row])
            axes.plot([found.mean], [at + shift], mark, color=COLORS[row])
    axes.set_yticks(range(len(verdict.rows)), list(verdict.rows)[::-1])
    axes.set_ylim(-0.6, len(verdict.rows) - 0.4)
    return figure


def importance(found: Mapping[str, tuple[float, float, float]]) -> Figure:
    """Show how much of the differences between trials each stage explains.

    Args:
        found: mean and bounds by name, the most important first.
    """
    figure, axes = _axes("share of the differences between trials", "", 0.6 + 0.3 * len(found))
    names = list(found)[::-1]
    means = [found[name][0] for name in names]
    errors = [
        [found[name][0] - found[name][1] for name in names],
        [found[name][2] - found[name][0] for name in names],
    ]
    axes.barh(range(len(names)), means, xerr=np.clip(errors, 0, None), color="#1f6fb4", alpha=0.7)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(left=0)
    return figure
