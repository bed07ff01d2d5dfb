"""The figures of a report, as SVG without any reference outside."""

import io
import re
from collections.abc import Iterable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.scores import Mode, best, without_split
from lightning_tricks.search.keys import ENTRY, PHASE, REPORT, ROLE, SEED_INDEX
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.selection.ablation import Ablation
from lightning_tricks.selection.intervals import mean_interval
from lightning_tricks.selection.result import ENSEMBLE, Verdict

WIDTH, HEIGHT = 7.0, 3.2
"""Inches."""
COLORS = {
    "plain": "#888888",
    "yours": "#7a4fb5",
    "baseline": "#1f6fb4",
    f"baseline{ENSEMBLE}": "#7fb2dd",
}
"""Of the rows that every verdict has; the candidate is red, and its ensemble purple."""

FAMILIES = {"leave one out": "#c23b22", "add one in": "#1f6fb4", "pair": "#7a3b9a"}


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


def _color(row: str) -> str:
    return COLORS.get(row, "#7a3b9a" if row.endswith(ENSEMBLE) else "#c23b22")


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
    """Show the learning curves of the report's recipes: mean and 95 % interval over seeds."""
    figure, axes = _axes("epoch", monitor)
    found: dict[str, list[Sequence[float]]] = {}
    for trial in sorted(reports, key=lambda t: int(t.user_attrs.get(SEED_INDEX, 0))):
        outcome = Outcome.read(trial)
        if outcome is not None and trial.user_attrs.get(PHASE) == REPORT and outcome.epochs:
            found.setdefault(trial.user_attrs[ENTRY], []).append(outcome.curve(monitor))
    for row in verdict.rows:
        runs = [run for run in found.get(row, []) if len(run) == max(map(len, found[row]))]
        if runs:
            steps = [mean_interval([run[at] for run in runs]) for at in range(len(runs[0]))]
            epochs = np.arange(1, len(steps) + 1)
            axes.plot(epochs, [step.mean for step in steps], color=_color(row), label=row)
            low = [step.mean if step.low is None else step.low for step in steps]
            high = [step.mean if step.high is None else step.high for step in steps]
            axes.fill_between(epochs, low, high, color=_color(row), alpha=0.15)
    axes.legend(frameon=False)
    return figure


def intervals(verdict: Verdict, monitor: str) -> Figure:
    """Show the scores of the verdict's rows with their intervals, validation and test."""
    figure, axes = _axes(without_split(monitor), "", height=0.6 + 0.5 * len(verdict.rows))
    for at, (row, held) in enumerate(reversed(list(verdict.rows.items()))):
        pairs = ((held.validation, 0.12, "o"), (held.test, -0.12, "s"))
        for found, shift, mark in pairs:
            if found is None:
                continue
            low = found.mean if found.low is None else found.low
            high = found.mean if found.high is None else found.high
            axes.plot([low, high], [at + shift] * 2, color=_color(row))
            axes.plot([found.mean], [at + shift], mark, color=_color(row))
    axes.set_yticks(range(len(verdict.rows)), list(verdict.rows)[::-1])
    axes.set_ylim(-0.6, len(verdict.rows) - 0.4)
    return figure


def coordinates(
    trials: Sequence[FrozenTrial], stages: Sequence[str], mode: Mode, champion: int
) -> Figure:
    """Show the kinds of each trial as a line across the stages (parallel coordinates, Inselberg, 1985).

    Args:
        trials: which used their whole budget.
        stages: in which they differ.
        mode: whether less or more is better.
        champion: the number of its trial.
    """
    figure, axes = _axes("", "", 4.5)
    axes.spines[["left", "bottom"]].set_visible(False)
    kinds = {s: sorted({str(t.params[s]) for t in trials if s in t.params}) for s in stages}
    ranks = rank_from_worst([float(trial.value or 0.0) for trial in trials], mode)
    for place, trial in sorted(zip(ranks, trials, strict=True), key=lambda pair: pair[0]):
        own = trial.number == champion
        heights = [_height(kinds[stage], trial.params.get(stage)) for stage in stages]
        color, share = ("#c23b22", 1.0) if own else ("#1f6fb4", 0.05 + 0.6 * place)
        axes.plot(range(len(stages)), heights, color=color, alpha=share, zorder=2 + own)
    for at, stage in enumerate(stages):
        for kind in kinds[stage]:
            axes.annotate(kind, (at, _height(kinds[stage], kind)), fontsize=7, rotation=20)
    axes.set_xticks(range(len(stages)), stages, rotation=30, ha="right", fontsize=8)
    axes.set_yticks([])
    return figure


def _height(kinds: Sequence[str], kind: object) -> float:
    """Return where a kind stands on its axis, between 0 and 1; below where a trial has none."""
    return (kinds.index(str(kind)) + 0.5) / len(kinds) if str(kind) in kinds else -0.1


def rank_from_worst(values: Sequence[float], mode: Mode) -> list[float]:
    """Return the rank of each value, 0 for the worst and 1 for the best."""
    order = np.argsort(np.argsort(values)) / max(len(values) - 1, 1)
    return [float(place if mode == "max" else 1 - place) for place in order]


def forest(ablation: Ablation) -> Figure:
    """Show what each trick is worth with its interval; what excludes zero is filled."""
    effects = [effect for effect in ablation.effects if effect.worth is not None]
    figure, axes = _axes("worth, in units of the score", "", 0.8 + 0.28 * max(len(effects), 1))
    for at, effect in enumerate(reversed(effects)):
        found, color = effect.worth, FAMILIES[effect.family]
        assert found is not None
        low = found.mean if found.low is None else found.low
        high = found.mean if found.high is None else found.high
        axes.plot([low, high], [at, at], color=color)
        face = color if effect.found else "white"
        axes.plot([found.mean], [at], "o", color=color, markerfacecolor=face)
    names = [f"{' × '.join(effect.stages)}, {effect.family}" for effect in effects]
    axes.set_yticks(range(len(effects)), names[::-1], fontsize=8)
    axes.axvline(0, color="#888888", linewidth=0.8)
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
