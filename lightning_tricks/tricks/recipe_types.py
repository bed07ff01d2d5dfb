"""Read recipes from plain data, by the name of their type."""

import warnings
from collections.abc import Iterator
from typing import Any

from lightning_tricks.errors import InputError
from lightning_tricks.tricks.recipe import ImageTricks, ModuleTricks, Tricks


def type_name(recipe: Tricks) -> str:
    """Return the name under which `recipe_of` finds the type of a recipe."""
    return f"{type(recipe).__module__}:{type(recipe).__qualname__}"


def import_of(kind: type[Tricks]) -> str:
    """Return the line that imports a recipe's type, which `recipe_of` needs; empty for our own."""
    if kind.__module__.partition(".")[0] == "lightning_tricks":
        return ""
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        return f"# First import or define {kind.__name__}, the type of the recipe, as the study does.\n"
    return f"from {kind.__module__} import {kind.__name__}  # the type of the recipe\n"


def recipe_of(data: Any, name: str = "") -> Tricks:
    """Return the recipe that plain data describe, as a checkpoint holds them.

    Only types that are already imported are found; nothing is imported because a file names it.

    If the type is not found, the result has the fields of this package's types only, with a warning.

    Args:
        data: the recipe, or its plain data.
        name: the name of its type; empty for `Tricks`.

    Raises:
        InputError: if the data are not valid.
    """
    if isinstance(data, Tricks):
        return data
    module, _, inside = name.partition(":")
    for kind in _subclasses(Tricks):
        # A script's module is `__main__` when it runs, and has its own name when it is imported.
        if not name or (kind.__qualname__ == inside and module in (kind.__module__, "__main__")):
            return kind.parse(data)
    return _common(data, inside, module)


def _common(data: Any, inside: str, module: str) -> Tricks:
    """Return a recipe of this package with the fields that it shares with a type not imported."""
    for kind in (Tricks, ImageTricks, ModuleTricks):
        own = sorted(set(data) - set(kind.model_fields))
        try:
            found = kind.parse({name: value for name, value in data.items() if name not in own})
        except InputError:  # perhaps the next type has this kind
            continue
        warnings.warn(
            f"the recipe has the type {inside!r} of {module!r}, which is not imported: it comes back "
            f"as {kind.__name__}, without {own or 'other changes of that type'}",
            stacklevel=3,
        )
        return found
    raise InputError(
        f"the recipe has the type {inside!r} of {module!r}: import that module first, or pass the "
        "recipe as `tricks`"
    )


def _subclasses(kind: type[Tricks]) -> Iterator[type[Tricks]]:
    yield kind
    for derived in kind.__subclasses__():
        yield from _subclasses(derived)
