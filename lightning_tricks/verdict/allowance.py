"""How many trainings a verdict may take."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from optuna.trial import FrozenTrial

from lightning_tricks.search.keys import ENTRY
from lightning_tricks.selection.arms import trainings
from lightning_tricks.selection.terms import FEWEST, Terms
from lightning_tricks.study.session import Session
from lightning_tricks.study.spending import spent_on
from lightning_tricks.tricks.recipe import Tricks

CHOOSING = 0.4
"""Share of the trainings that choose the candidate; the rest compares it with what the user has."""


@dataclass(frozen=True)
class Allowance:
    """The number of trainings that a verdict may take."""

    choosing: int
    """Number of trainings that choose the candidate."""
    left: Callable[[Sequence[FrozenTrial]], float]
    """Takes the trials that were trained, and returns how many more trainings there may be."""

    @classmethod
    def counted(cls, budget: int, choosing: int) -> "Allowance":
        """Return an allowance of a number of trainings."""
        return cls(choosing, lambda trained: budget - len(trained))


def allowance(
    own: Session, recipes: Mapping[str, Tricks], terms: Terms, usual: int, *, ablates: bool
) -> Allowance:
    """Return what a verdict may take: a number of trainings, or what is left of the study's budget.

    Args:
        own: the session of the verdict.
        recipes: the recipes that run again, by name.
        terms: the terms that the user set.
        usual: number of trainings without a budget. What a budget has beyond it is for the comparison.
        ablates: whether an ablation follows, for which some of the budget is kept.
    """
    if not terms.within:
        budget = terms.budget or usual
        return Allowance.counted(budget, int(CHOOSING * min(budget, usual)))
    kept = _cost_of_ablation(own, recipes, terms) if ablates else 0.0
    others = [trial for trial in own.history if trial.user_attrs[ENTRY] not in recipes]
    left = partial(_left, own, others, kept, usual)
    if (most := left([])) < terms.fewest:
        own.progress.print(
            f"the verdict takes at least {terms.fewest} trainings; the budget has about "
            f"{max(most, 0):.0f} left"
        )
    return Allowance(int(CHOOSING * min(max(most, 0), usual)), left)


def _left(
    own: Session, others: Sequence[FrozenTrial], kept: float, usual: int, trained: Sequence[FrozenTrial]
) -> float:
    """Return the number of trainings that the budget has left.

    Args:
        own: the session of the verdict.
        others: trials of the study's earlier verdicts, of other recipes.
        kept: number of epochs that are kept for an ablation.
        usual: number of trainings if the time of one is not known.
        trained: trials of this verdict.
    """
    found = (own.spending.left(spent_on([*others, *trained], repeats=1)) - kept) / own.task.epochs
    return found if math.isfinite(found) else usual - len(trained)


def _cost_of_ablation(own: Session, recipes: Mapping[str, Tricks], terms: Terms) -> float:
    """Return the number of epochs that an ablation may need: at most half of those that are left.

    It is 0 if that is too few for the smallest ablation: then the verdict gets all of them.
    """
    plain, half = own.space.nearest(own.task.tricks.plain()), own.spending.left([]) / 2
    least, most = (
        max((trainings(own.space, recipe, plain, seeds) for recipe in recipes.values()), default=0)
        * own.task.epochs
        for seeds in (FEWEST, terms.seeds)
    )
    return min(most, half) if least <= half else 0.0
