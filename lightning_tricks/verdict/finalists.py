"""The recipes of a search that run again, and the search's cost in trainings."""

import math

from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.scores import rank_of
from lightning_tricks.search.outcomes import Outcome, name_of
from lightning_tricks.selection.evidence import shrunk
from lightning_tricks.selection.result import BASELINE, YOURS, incumbent_of
from lightning_tricks.study.session import Session
from lightning_tricks.verdict.reruns import recipe_of


def by_name(search: Session) -> dict[str, FrozenTrial]:
    """Return the trials of a search by name, except those that repeat a recipe."""
    found = {}
    for trial in search.history:
        outcome = Outcome.read(trial)
        if outcome is not None and outcome.duplicate_of is None:
            found[name_of(trial)] = trial
    return found


def finalists(search: Session, count: int) -> dict[str, FrozenTrial]:
    """Return a search's best complete trials by evidence, followed by the references.

    Args:
        search: the finished search.
        count: number of recipes in addition to the incumbent.
    """
    known = by_name(search)
    complete = {name: t for name, t in known.items() if t.state == TrialState.COMPLETE}
    incumbent = incumbent_of(complete)
    complete.pop(YOURS, None)  # it is not in the space
    recipes = [recipe_of(search, trial) for trial in complete.values()]
    scores = [float(trial.value or 0.0) for trial in complete.values()]
    evidence = shrunk(recipes, scores, search.space, search.task.mode) if complete else []
    worth = dict(zip(complete, evidence, strict=True))
    rivals = [name for name in complete if name != incumbent]
    rivals.sort(key=lambda name: (-worth[name], rank_of(complete[name], search.task.mode)))
    chosen = dict.fromkeys([*rivals[:count], incumbent, BASELINE, "plain"])
    return {name: known[name] for name in chosen if name in known}


def full_trainings(search: Session) -> int:
    """Return a search's cost in full trainings; pruned trials count by their share of epochs."""
    spent = [o for trial in search.history if (o := Outcome.read(trial)) is not None]
    epochs = sum(len(outcome.epochs) for outcome in spent if outcome.duplicate_of is None)
    return math.ceil(epochs * search.task.repeats / search.task.epochs)
