"""Walks the fields of a recipe type, or of a recipe, by their paths."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lightning_tricks.space.domains import Choice, Domain, Fixed
from lightning_tricks.space.trick import (
    Trick,
    kind_of,
    variants,
)


def domains_of(model: type[Trick], prefix: str) -> Iterator[tuple[str, Domain]]:
    """Walk every field of a recipe type, including the fields of all variants."""
    for name, field in model.model_fields.items():
        path = prefix + name
        if options := variants(field):
            searched = [kind for kind, option in options.items() if option.searched]
            own = [item for item in field.metadata if isinstance(item, Domain)]
            yield path, own[0] if own else one_of(searched)
            for kind, option in options.items():
                yield from domains_of(option, f"{path}.{kind}.")
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Trick):
            yield from domains_of(field.annotation, f"{path}.")
        elif name != "kind":
            found = [item for item in field.metadata if isinstance(item, Domain)]
            yield path, found[0] if found else Fixed(field.get_default(call_default_factory=True))


def one_of(kinds: list[str]) -> Domain:
    """Return the domain of these kinds."""
    return Choice(*kinds) if len(kinds) > 1 else Fixed(*kinds)


def draw(model: type[Trick], prefix: str, choose: Callable[[str], Any]) -> dict[str, Any]:
    """Build a recipe's data, asking `choose` for each active path in the order of the fields."""
    data: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        path = prefix + name
        if options := variants(field):
            kind = choose(path)
            data[name] = {"kind": kind, **draw(options[kind], f"{path}.{kind}.", choose)}
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Trick):
            data[name] = draw(field.annotation, f"{path}.", choose)
        elif name != "kind":
            data[name] = choose(path)
    return data


def paths_of(recipe: Trick, prefix: str) -> Iterator[tuple[str, Any]]:
    """Walk the active paths of a recipe with their values; a stage's value is its kind."""
    for name, field in type(recipe).model_fields.items():
        value, path = getattr(recipe, name), prefix + name
        if not isinstance(value, Trick):
            if name != "kind":
                yield path, value
        elif variants(field):
            kind = kind_of(type(value))
            yield path, kind
            yield from paths_of(value, f"{path}.{kind}.")
        else:
            yield from paths_of(value, f"{path}.")


def paths_in(data: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Walk a recipe's paths like `paths_of`, but in plain data: its type need not be known."""
    for name, value in data.items():
        path = prefix + name
        if not isinstance(value, Mapping):
            if name != "kind":
                yield path, value
        elif "kind" in value:
            yield path, value["kind"]
            yield from paths_in(value, f"{path}.{value['kind']}.")
        else:
            yield from paths_in(value, f"{path}.")
