"""Checks the types of arguments by their annotations."""

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from lightning_tricks.errors import InputError, shown

Given = ParamSpec("Given")
Returned = TypeVar("Returned")


def checked(*names: str) -> Callable[[Callable[Given, Returned]], Callable[Given, Returned]]:
    """Let a function refuse arguments whose type is not the annotated one.

    Annotations are classes, unions and sequences. Leave out numbers, which may be NumPy's.

    Args:
        names: the names of the arguments to check.

    Raises:
        InputError: by the function, for a value of another type.

    Example:
        @checked("path")
        def read(path: str | Path) -> str: ...
    """

    def decorate(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checking(*args: Given.args, **kwargs: Given.kwargs) -> Returned:
            hints = get_type_hints(function)
            for name, value in signature.bind(*args, **kwargs).arguments.items():
                if name in names:
                    check_type(name, value, hints[name])
            return function(*args, **kwargs)

        return checking

    return decorate


def check_type(name: str, value: object, kind: Any) -> None:
    """Check the type of an argument.

    Raises:
        InputError: if it is of another type.
    """
    if not _fits(value, kind):
        words = re.sub(r"\b\w+\.", "", inspect.formatannotation(kind))
        raise InputError(f"{name} must be of type {words} (got {shown(value, 80)})")


def _fits(value: object, kind: Any) -> bool:
    """Tell whether a value is of a type: a class, a union, or a sequence of them."""
    if isinstance(kind, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is Sequence:
        if not isinstance(value, Sequence) or isinstance(value, str):
            return False
        return all(_fits(one, get_args(kind)[0]) for one in value)
    return isinstance(value, kind)
