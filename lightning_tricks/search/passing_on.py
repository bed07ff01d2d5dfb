"""Optuna storages that wrap another storage."""

from collections.abc import Callable, Iterable
from types import new_class
from typing import Any

from optuna.storages import BaseStorage


def passing_on(names: Iterable[str]) -> Any:
    """Return a storage class whose named methods call `_pass_on` with their name and arguments.

    Args:
        names: the methods to pass on; all others stay those of `BaseStorage`, which call these.
    """
    methods = {name: _passed_on(name) for name in names}
    return new_class("PassingOn", (BaseStorage,), exec_body=lambda body: body.update(methods))


def _passed_on(name: str) -> Callable[..., Any]:
    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        return self._pass_on(name, arguments, options)

    return method
