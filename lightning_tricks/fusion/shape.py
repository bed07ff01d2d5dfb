"""Shapes of recipes: trials of one shape have networks of one structure and can train as one."""

from collections.abc import Hashable, Mapping
from typing import Any

from lightning_tricks.space.trick import stages
from lightning_tricks.tricks.recipe import Tricks

_SHARED = {
    stage: {trick.structural for trick in kinds.values()} for stage, kinds in stages(Tricks).items()
}
_WHOLE = tuple(stage for stage, shared in _SHARED.items() if "fields" in shared)
"""Stages whose fields, not only their kind, change the structure of the network or of a batch."""
_KINDS = tuple(stage for stage, shared in _SHARED.items() if "kind" in shared)
"""Stages whose kind adds layers to the network, or a second pass to a step."""


def shape_of(recipe: Tricks) -> Hashable:
    """Return a key that is equal for recipes of one shape; it includes fields that a subclass adds."""
    own = [name for name in type(recipe).model_fields if name not in Tricks.model_fields]
    kinds = tuple(getattr(recipe, name).kind for name in _KINDS)
    return (kinds, *(repr(getattr(recipe, name)) for name in (*_WHOLE, *own)))


def shape_in(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a trial that determine the shape of its recipe."""
    return {name: value for name, value in parameters.items() if _of_shape(name)}


def _of_shape(name: str) -> bool:
    stage = name.partition(".")[0]
    return stage in _WHOLE or name in _KINDS or stage not in Tricks.model_fields
