"""What a new study takes over from earlier ones: the effects of kinds, and the best recipes."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import optuna
from optuna.trial import TrialState

from lightning_tricks.scores import rank_of
from lightning_tricks.search import keys
from lightning_tricks.search.order import mode_of
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.sampling.given import enqueue
from lightning_tricks.search.sampling.prior import learned, told
from lightning_tricks.space.paths import paths_in
from lightning_tricks.space.space import Space

BEST = 3
"""Number of recipes taken from each earlier study."""


def learn(
    study: optuna.Study, space: Space[Any], sources: Sequence[optuna.Study], attrs: Mapping[str, Any]
) -> list[str]:
    """Store what earlier studies found, and put their best recipes into the queue.

    Recipes are mapped by path: numbers outside a domain move to its bound, and a kind that is not in the
    space becomes the nearest recipe's.

    Args:
        study: the new study.
        space: its search space.
        sources: the earlier studies.
        attrs: attributes of a new trial.

    Returns:
        A line for each source, with the kinds of its best recipes that the space does not have.
    """
    if not sources:
        return []
    study.set_user_attr(keys.PRIOR, learned(sources))
    lines, seen = [], [space.nearest(space.model())]
    for source in sources:
        missing: dict[str, None] = {}
        recipes = best_recipes(source)
        for recipe in recipes:
            wanted = dict(paths_in(recipe, ""))
            missing |= dict.fromkeys(_missing(space, wanted))
            nearest = space.nearest_to(wanted)
            if nearest not in seen:
                seen.append(nearest)
                enqueue(study, space, nearest, attrs)
        left_out = f"; not in this space: {', '.join(missing)}" if missing else ""
        lines.append(f"learned from {len(told(source))} trials of {source.study_name!r}{left_out}")
    return lines


def best_recipes(study: optuna.Study) -> list[Mapping[str, Any]]:
    """Return the recipes of a study's best complete trials, as plain data."""
    complete = [t for t in told(study) if t.state == TrialState.COMPLETE]
    complete.sort(key=partial(rank_of, mode=mode_of(study.direction)))
    recipes = {o.key: o.recipe for t in complete if (o := Outcome.read(t)) is not None}
    return list(recipes.values())[:BEST]


def _missing(space: Space[Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """Yield the stages' kinds that a space does not have."""
    for path, value in wanted.items():
        if "." not in path and isinstance(value, str):
            domain = space.domains.get(path)
            if domain is None or domain.nearest(value) != value:
                yield f"{path} {value}"
