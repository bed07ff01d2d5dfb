"""Recipes read from plain data, by the name of their type."""

import warnings
from collections.abc import Iterator
from typing import Any

from lightning_tricks.errors import InputError
from lightning_tricks.tricks.recipe import ImageTricks, ModuleTricks, Tricks


def type_name(recipe: Tricks) -> str:
    """Return the name by which `recipe_of` finds the type of a recipe."""
    return f"{type(recipe).__module__}:{type(recipe).__qualname__}"


def recipe_of(data: Any, name: str = "") -> Tricks:
    """Read a recipe from plain data, as a checkpoint holds it.

    Types are looked for among those that are imported already: what a file names is not imported.

    Where the type is not there, the fields that all recipes have come back, with a warning.

    Args:
        data: the recipe, or its plain data.
        name: of its type; empty for `Tricks`.

    Raises:
        InputError: if the data are not valid.
    """
    if isinstance(data, Tricks):
        return data
    module, _, inside = name.partition(":")
    for kind in _subclasses(Tricks):
        # A script that was run has another name when it is imported.
        if not name or (kind.__qualname__ == inside and module in (kind.__module__, "__main__")):
            return kind.parse(data)
    return _common(data, inside, module)


def _common(data: Any, inside: str, module: str) -> Tricks:
    """Return what a recipe of a type that is not imported has in common with those of this package."""
    for kind in (Tricks, ImageTricks, ModuleTricks):
        own = sorted(set(data) - set(kind.model_fields))
        try:
            found = kind.parse({name: value for name, value in data.items() if name not in own})
        except InputError:  # a kind that only the next has
            continue
        warnings.warn(
            f"the recipe is of the type {inside!r} of {module!r}, which is not imported: it comes back "
            f"as {kind.__name__}, without {own or 'what else that changes'}",
            stacklevel=3,
        )
        return found
    raise InputError(
        f"the recipe is of the type {inside!r} of {module!r}: import that before, or give the recipe as "
        "`tricks`"
    )


def _subclasses(kind: type[Tricks]) -> Iterator[type[Tricks]]:
    yield kind
    for derived in kind.__subclasses__():
        yield from _subclasses(derived)
