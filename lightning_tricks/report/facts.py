"""Facts of a study in tables: gradients, cost, versions."""

import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.report.blocks import Table
from lightning_tricks.search.keys import FUSE
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.task.task import Task


def health(trials: Sequence[FrozenTrial], task: Task) -> Table:
    """Return how large gradients were, by initialization and normalization."""
    ratios: dict[tuple[str, str], list[float]] = {}
    for trial in trials:
        outcome = Outcome.read(trial)
        if outcome is None or not outcome.epochs:
            continue
        recipe = task.tricks.parse(outcome.recipe)
        ratio = outcome.epochs[0]["metrics"].get("weights/first_to_last")
        if ratio is not None:
            place = (recipe.initialization.kind, recipe.normalization.kind)
            ratios.setdefault(place, []).append(ratio)
    rows = [
        (init, norm, str(len(values)), _range(values))
        for (init, norm), values in sorted(ratios.items(), key=lambda item: min(item[1]))
    ]
    header = (
        "initialization",
        "normalization",
        "trials",
        "gradient, first by last layer, epoch 1",
    )
    return Table(header, rows)


def _range(values: Sequence[float]) -> str:
    """Return the smallest and the largest value, or the only one."""
    return " to ".join(dict.fromkeys(f"{value:.3g}" for value in (min(values), max(values))))


def hours(trials: Iterable[FrozenTrial]) -> float:
    """Return how many hours of a device trainings took."""
    spent = [o for t in trials if (o := Outcome.read(t)) is not None]
    return sum(outcome.seconds for outcome in spent if outcome.duplicate_of is None) / 3600


def duration(seconds: float) -> str:
    """Return a duration in words, in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def cost(trials: Sequence[FrozenTrial], reruns: Sequence[FrozenTrial]) -> Table:
    """Return what a study took: its search, and what followed."""
    ended = [(o, t) for t in trials if (o := Outcome.read(t)) is not None]
    pruned = [o for o, t in ended if t.state == TrialState.PRUNED]
    full = [o.seconds for o, t in ended if t.state == TrialState.COMPLETE and o.duplicate_of is None]
    usual = sum(full) / len(full) if full else 0.0
    saved = sum(max(usual - o.seconds, 0.0) for o in pruned)
    states = [t.state for t in trials]
    rows = [
        ("device time", duration(3600 * hours([*trials, *reruns]))),
        ("trials complete", str(states.count(TrialState.COMPLETE))),
        ("trials pruned", f"{len(pruned)}, which saved about {duration(saved)}"),
        ("trials failed", str(states.count(TrialState.FAIL))),
        ("trainings after the search", str(len(reruns))),
    ]
    return Table(("what", "how much"), rows)


def versions(search: optuna.Study, commands: Sequence[str], budget: int) -> Table:
    """Return what reproduces a study: commands, settings that were measured, packages."""
    packages = ("lightning_tricks", "torch", "pytorch-lightning", "optuna", "mlflow")
    rows = [
        *(("command", command) for command in commands),
        ("trainings of the verdict", f"up to {budget}"),
    ]
    if (found := search.user_attrs.get(FUSE)) is not None:
        rows.append(("trainings done as one", f"up to {found['best']}, which was measured"))
    rows += [(name, version(name)) for name in packages]
    return Table(("what", "which"), [*rows, ("python", platform.python_version())])
