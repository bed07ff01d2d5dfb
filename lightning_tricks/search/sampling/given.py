"""Trials whose recipe is given, and not drawn: that of a LightningModule as it is."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from lightning_tricks.scores import PREFIX
from lightning_tricks.space.space import Space
from lightning_tricks.tricks.recipe import Tricks

RECIPE = f"{PREFIX}recipe"
"""Name under which such a trial holds its recipe."""


def given_recipe(trial: FrozenTrial | optuna.Trial) -> Mapping[str, Any] | None:
    """Return the recipe that a trial was given; None if it is to be drawn."""
    held: Mapping[str, Any] | None = trial.user_attrs.get(RECIPE)
    return held


def enqueue(study: optuna.Study, space: Space[Any], recipe: Tricks, attrs: Mapping[str, Any]) -> None:
    """Put a trial of a recipe into the queue of a study, as parameters where the space has it."""
    if space.nearest(recipe) == recipe:
        study.enqueue_trial(space.params(recipe), user_attrs=dict(attrs))
    else:
        study.enqueue_trial({}, user_attrs={**attrs, RECIPE: recipe.model_dump()})
