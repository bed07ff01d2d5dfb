"""Trials with a given recipe instead of a drawn one, such as the user's unchanged LightningModule."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from lightning_tricks.scores import PREFIX
from lightning_tricks.space.space import Space
from lightning_tricks.tricks.recipe import Tricks

RECIPE = f"{PREFIX}recipe"
"""Attribute of such a trial: its recipe."""


def given_recipe(trial: FrozenTrial | optuna.Trial) -> Mapping[str, Any] | None:
    """Return a trial's given recipe; None if its recipe must be drawn."""
    held: Mapping[str, Any] | None = trial.user_attrs.get(RECIPE)
    return held


def enqueue(study: optuna.Study, space: Space[Any], recipe: Tricks, attrs: Mapping[str, Any]) -> None:
    """Put a recipe into a study's queue: as parameters if the space contains it, else as given."""
    if space.nearest(recipe) == recipe:
        study.enqueue_trial(space.params(recipe), user_attrs=dict(attrs))
    else:
        study.enqueue_trial({}, user_attrs={**attrs, RECIPE: recipe.model_dump()})
