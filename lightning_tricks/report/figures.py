"""The figures of a report, as SVG without any reference outside."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.report.drawing import axes_of, bounds, count_whole, draw_interval, frame, usual
from lightning_tricks.scores import Mode, best, without_split
from lightning_tricks.search.keys import ENTRY, PHASE, REPORT, ROLE, SEED_INDEX
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.selection.ablation import Ablation
from lightning_tricks.selection.intervals import Interval, mean_interval
from lightning_tricks.selection.result import ENSEMBLE, Verdict

COLORS = {
    "plain": "#888888",
    "yours": "#7a4fb5",
    "baseline": "#1f6fb4",
    f"baseline{ENSEMBLE}": "#7fb2dd",
}
"""Of the rows that every verdict has; the candidate is red, and its ensemble purple."""

MOST_IN_A_LINE = 6
"""Maximum number of names side by side that never touch; more of them alternate between two lines."""
FAMILIES = {"leave one out": "#c23b22", "add one in": "#1f6fb4", "pair": "#7a3b9a"}


def _color(row: str) -> str:
    return COLORS.get(row, "#7a3b9a" if row.endswith(ENSEMBLE) else "#c23b22")


def history(trials: Iterable[FrozenTrial], monitor: str, mode: Mode) -> Figure:
    """Show the score of each trial in the order of the search, and the best so far."""
    figure, axes = axes_of("trial", monitor)
    complete = [t for t in trials if t.state == TrialState.COMPLETE and t.value is not None]
    numbers = [trial.number for trial in complete]
    scores = [float(trial.value or 0.0) for trial in complete]
    low, high = usual(scores) if scores else (0.0, 0.0)
    for trial, score in zip(complete, scores, strict=True):
        role = trial.user_attrs.get(ROLE, "")
        color, mark = COLORS.get(role, "#1f6fb4"), "s" if role else "o"
        mark = mark if low <= score <= high else "v" if score < low else "^"
        tip = f"tip:trial {trial.number}{f', {role}' if role else ''}: {score:.4f}"
        place = [min(max(score, low), high)]
        axes.plot([trial.number], place, mark, color=color, alpha=1 if role else 0.6, gid=tip)
    so_far = [best(scores[: at + 1], mode) for at in range(len(scores))]
    shown = [min(max(score, low), high) for score in so_far]
    axes.step(numbers, shown, where="post", color="#c23b22", label="best so far")
    axes.plot([], [], "o", color="#1f6fb4", alpha=0.6, label="complete")
    for role in {trial.user_attrs.get(ROLE): None for trial in complete}:
        if role:
            axes.plot([], [], "s", color=COLORS.get(role, "#1f6fb4"), label=role)
    count_whole(axes)
    axes.legend(frameon=False, fontsize=8)
    return figure


def curves(reports: Iterable[FrozenTrial], verdict: Verdict, monitor: str) -> Figure:
    """Show the learning curves of the report's recipes: mean and 95 % interval over seeds."""
    figure, axes = axes_of("epoch", monitor)
    found: dict[str, list[Sequence[float]]] = {}
    seen: list[float] = []
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
            low, high = zip(*map(bounds, steps), strict=True)
            axes.fill_between(epochs, low, high, color=_color(row), alpha=0.15)
            if row != "plain":  # which may be far away
                seen += [step.mean for step in steps]
    if seen:
        low_edge, high_edge = usual(seen)
        room = 0.1 * (high_edge - low_edge) or 0.01
        axes.set_ylim(low_edge - room, high_edge + room)
    count_whole(axes)
    axes.legend(frameon=False)
    return figure


def intervals(verdict: Verdict, monitor: str) -> Figure:
    """Show the scores of the verdict's rows with their intervals, validation and test."""
    figure, axes = axes_of(without_split(monitor), "", height=0.9 + 0.5 * len(verdict.rows))
    rows = list(reversed(list(verdict.rows.items())))
    near = [held for name, held in rows if name != "plain"] or [held for _, held in rows]
    frame(axes, [found for held in near for found in (held.validation, held.test) if found is not None])
    for at, (row, held) in enumerate(rows):
        for found, shift, mark in ((held.validation, 0.12, "o"), (held.test, -0.12, "s")):
            if found is not None:
                draw_interval(axes, found, at + shift, _color(row), mark)
    for mark, split in (("o", "validation"), ("s", "test")):
        axes.plot([], [], mark, color="#444444", label=split)
    axes.legend(frameon=False, fontsize=8, ncol=2, loc="lower right", bbox_to_anchor=(1, 1))
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    return figure


def differences(found: Mapping[str, Interval], metric: str) -> Figure:
    """Show differences with their intervals, and the zero that they are to leave out.

    Args:
        found: by what is compared.
        metric: that they are differences of.
    """
    figure, axes = axes_of(f"difference in {metric}; above 0 is better", "", 0.7 + 0.35 * len(found))
    frame(axes, list(found.values()), 0.0)
    for at, interval in enumerate(reversed(list(found.values()))):
        sure = "#c23b22" if interval.excludes_zero else "#888888"
        draw_interval(axes, interval, at, sure, "o")
    axes.axvline(0, color="#444444", linewidth=0.8)
    axes.set_yticks(range(len(found)), list(found)[::-1])
    axes.set_ylim(-0.6, len(found) - 0.4)
    return figure


def coordinates(
    trials: Sequence[FrozenTrial], stages: Sequence[str], mode: Mode, champion: int
) -> Figure:
    """Show the kinds of each trial as a line down the stages (parallel coordinates, Inselberg, 1985).

    Args:
        trials: which used their whole budget.
        stages: in which they differ.
        mode: whether less or more is better.
        champion: the number of its trial.
    """
    figure, axes = axes_of("", "", 0.5 + 0.5 * len(stages))
    axes.spines[["left", "bottom"]].set_visible(False)
    kinds = {s: sorted({str(t.params[s]) for t in trials if s in t.params}) for s in stages}
    ranks = rank_from_worst([float(trial.value or 0.0) for trial in trials], mode)
    for place, trial in sorted(zip(ranks, trials, strict=True), key=lambda pair: pair[0]):
        own = trial.number == champion
        places = [_place(kinds[stage], trial.params.get(stage)) for stage in stages]
        color, share = ("#c23b22", 1.0) if own else ("#1f6fb4", 0.05 + 0.6 * place)
        axes.plot(places, range(len(stages)), color=color, alpha=share, zorder=2 + own)
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for at, stage in enumerate(stages):
        for number, kind in enumerate(kinds[stage]):
            crowded = len(kinds[stage]) > MOST_IN_A_LINE
            line = at + (0.2 if number % 2 else -0.2) * crowded
            place = _place(kinds[stage], kind)
            axes.text(place, line, kind, ha="center", va="center", fontsize=7, bbox=paper, zorder=5)
    axes.set_yticks(range(len(stages)), stages, fontsize=8)
    axes.set_ylim(len(stages) - 0.6, -0.4)
    axes.set_xticks([])
    axes.set_xlim(0, 1)
    return figure


def _place(kinds: Sequence[str], kind: object) -> float:
    """Return where a kind stands in its row, between 0 and 1; at the left where a trial has none."""
    return (kinds.index(str(kind)) + 0.5) / len(kinds) if str(kind) in kinds else 0.0


def rank_from_worst(values: Sequence[float], mode: Mode) -> list[float]:
    """Return the rank of each value, 0 for the worst and 1 for the best."""
    order = np.argsort(np.argsort(values)) / max(len(values) - 1, 1)
    return [float(place if mode == "max" else 1 - place) for place in order]


def forest(ablation: Ablation) -> Figure:
    """Show what each trick is worth with its interval, the most first; what excludes zero is filled."""
    known = [(effect, effect.worth) for effect in ablation.effects if effect.worth is not None]
    known.sort(key=lambda pair: (pair[0].family, pair[1].mean))
    figure, axes = axes_of("worth, in units of the score", "", 0.8 + 0.28 * max(len(known), 1))
    frame(axes, [worth for _, worth in known], 0.0)
    for at, (effect, worth) in enumerate(known):
        color = FAMILIES[effect.family]
        draw_interval(axes, worth, at, color, "o", color if effect.found else "white")
    names = [f"{' × '.join(effect.stages)}, {effect.family}" for effect, _ in known]
    axes.set_yticks(range(len(known)), names, fontsize=8)
    axes.axvline(0, color="#888888", linewidth=0.8)
    return figure


def importance(found: Mapping[str, tuple[float, float, float]]) -> Figure:
    """Show how much of the differences between trials each stage explains.

    Args:
        found: mean and bounds by name, the most important first.
    """
    figure, axes = axes_of("share of the differences between trials", "", 0.6 + 0.3 * len(found))
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
