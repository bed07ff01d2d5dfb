"""The two packages of Lightning, `pytorch_lightning` and `lightning`.

They hold the same code as different classes: a Trainer of one refuses the modules, data modules and
plugins of the other. So a trial takes all of Lightning from the package of the user's module, which we
call its *flavor*.
"""

import functools
import importlib
import sys
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar, cast

import pytorch_lightning as pl

from lightning_tricks.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Flavor:
    """One of the two packages of Lightning."""

    trainer: str
    """Name of the package with the Trainer."""
    fabric: str
    """Name of the package with Fabric, whose plugins the Trainer uses."""

    @property
    def package(self) -> Any:
        """The package itself, with `Trainer`, `LightningModule` and `Callback`."""
        return importlib.import_module(self.trainer)

    def counterpart(self, kind: type[Any]) -> type[Any]:
        """Return this flavor's class that corresponds to a class of either flavor."""
        for other in FLAVORS:
            for theirs, ours in ((other.trainer, self.trainer), (other.fabric, self.fabric)):
                if kind.__module__.startswith(f"{theirs}."):
                    path = ours + kind.__module__.removeprefix(theirs)
                    found: type[Any] = getattr(importlib.import_module(path), kind.__name__)
                    return found
        raise TypeError(f"{kind.__name__} is not a class of Lightning")


STANDALONE = Flavor("pytorch_lightning", "lightning_fabric")
"""The flavor of this package's own classes."""
UNIFIED = Flavor("lightning.pytorch", "lightning.fabric")
FLAVORS = (STANDALONE, UNIFIED)


def flavor_of(thing: object) -> Flavor:
    """Return the flavor of an object whose class derives from one of Lightning's."""
    return next(iter(_flavors(type(thing))), STANDALONE)


def is_lightning_module(thing: object) -> TypeGuard[pl.LightningModule]:
    """Tell whether an object is a LightningModule of either flavor."""
    return _is_instance(thing, "LightningModule")


def is_data_module(thing: object) -> TypeGuard[pl.LightningDataModule]:
    """Tell whether an object is a LightningDataModule of either flavor."""
    return _is_instance(thing, "LightningDataModule")


def check_one_flavor(flavor: Flavor, **things: object) -> None:
    """Check that objects are of the flavor of a module.

    Args:
        flavor: the module's flavor.
        things: the objects, by the name for the error message.

    Raises:
        InputError: if an object has the other flavor.
    """
    for what, thing in things.items():
        if (found := _flavors(type(thing))) and flavor not in found:
            raise InputError(
                f"the module is of {flavor.trainer}, and the {what.replace('_', ' ')} "
                f"({type(thing).__name__}) of {found[0].trainer}: import both from one of them"
            )


def adapt(thing: T, flavor: Flavor) -> T:
    """Return the object, adapted to a flavor: its new class derives from its own and the flavor's.

    Args:
        thing: a callback, plugin or data module; any other object stays unchanged.
        flavor: the flavor of the Trainer that uses it.
    """
    if (found := _flavors(type(thing))) and flavor not in found:
        thing.__class__ = _adapted_type(cast("Any", type(thing)), flavor)
    return thing


def _is_instance(thing: object, name: str) -> bool:
    loaded = [sys.modules[flavor.trainer] for flavor in FLAVORS if flavor.trainer in sys.modules]
    return any(isinstance(thing, getattr(package, name, ())) for package in loaded)


def _flavors(kind: type[Any]) -> list[Flavor]:
    """Return the flavors of the Lightning classes that a class derives from, nearest first."""
    found = (flavor for base in kind.__mro__ for flavor in FLAVORS if _is_of(base, flavor))
    return list(dict.fromkeys(found))


def _is_of(kind: type[Any], flavor: Flavor) -> bool:
    """Tell whether a class is Lightning's own, of a flavor."""
    return kind.__module__.startswith((f"{flavor.trainer}.", f"{flavor.fabric}."))


@functools.cache
def _adapted_type(kind: Any, flavor: Flavor) -> type[Any]:
    theirs = next(base for base in kind.__mro__ if any(_is_of(base, each) for each in FLAVORS))
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind, flavor.counterpart(theirs)), names)
