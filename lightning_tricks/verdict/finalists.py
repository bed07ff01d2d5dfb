"""The recipes of a search that run again, and the search's cost in trainings."""

from collections.abc import Mapping

from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.scores import rank_of
from lightning_tricks.search.order import order_of
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
    complete = [name for name, trial in known.items() if trial.state == TrialState.COMPLETE]
    incumbent = incumbent_of(complete)
    rivals = [name for name in by_evidence(search) if name != incumbent]
    chosen = dict.fromkeys([*rivals[:count], incumbent, BASELINE, "plain"])
    return {name: known[name] for name in chosen if name in known}


def by_evidence(search: Session) -> dict[str, FrozenTrial]:
    """Return a search's complete trials of recipes in its space by name, the probably best first."""
    known = {name: trial for name, trial in by_name(search).items() if name != YOURS}
    worth = _evidence(search, known)
    complete = [name for name, trial in known.items() if trial.state == TrialState.COMPLETE]
    complete.sort(key=lambda name: (-worth[name], rank_of(known[name], search.task.mode)))
    return {name: known[name] for name in complete}


def _evidence(search: Session, trials: Mapping[str, FrozenTrial]) -> dict[str, float]:
    """Return how good each trial's recipe probably is; those that stopped early tell something, too."""
    told = {name: t for name, t in trials.items() if t.state != TrialState.FAIL}
    recipes = [recipe_of(search, trial) for trial in told.values()]
    places = order_of(list(told.values()), search.task.mode)
    evidence = shrunk(recipes, places, search.space, "max") if told else []
    return dict(zip(told, evidence, strict=True))


def full_trainings(search: Session) -> int:
    """Return how many full trainings a search would have taken if no trial had stopped early."""
    return search.history.counted * search.task.repeats
