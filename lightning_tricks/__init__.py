"""Every deep-learning training trick of a Lightning module, as a searchable hyperparameter.

A name is imported when it is first used: torch and MLflow take seconds, and a mistyped flag of a study
is told at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_tricks.adoption import load_with_tricks, with_tricks, without_tricks
    from lightning_tricks.backbones import MLP, Backbone, ConvNet, Torchvision
    from lightning_tricks.cli import main
    from lightning_tricks.data import InMemoryData, Split
    from lightning_tricks.errors import InputError
    from lightning_tricks.health import Diverged
    from lightning_tricks.module import TricksModule
    from lightning_tricks.pruning import PruningCallback
    from lightning_tricks.report import Summary
    from lightning_tricks.search import create_study
    from lightning_tricks.space import Choice, Float, Int, OneMinus, Space, Trick, suggest
    from lightning_tricks.study import optimize
    from lightning_tricks.task import Task
    from lightning_tricks.trial import Epoch, Result, train
    from lightning_tricks.tricks import ImageTricks, ModuleTricks, Tricks

__all__ = [
    "MLP",
    "Backbone",
    "Choice",
    "ConvNet",
    "Diverged",
    "Epoch",
    "Float",
    "ImageTricks",
    "InMemoryData",
    "InputError",
    "Int",
    "ModuleTricks",
    "OneMinus",
    "PruningCallback",
    "Result",
    "Space",
    "Split",
    "Summary",
    "Task",
    "Torchvision",
    "Trick",
    "Tricks",
    "TricksModule",
    "create_study",
    "load_with_tricks",
    "main",
    "optimize",
    "suggest",
    "train",
    "with_tricks",
    "without_tricks",
]

_NAMES = {
    "adoption": ["load_with_tricks", "with_tricks", "without_tricks"],
    "backbones": ["MLP", "Backbone", "ConvNet", "Torchvision"],
    "cli": ["main"],
    "data": ["InMemoryData", "Split"],
    "errors": ["InputError"],
    "health": ["Diverged"],
    "module": ["TricksModule"],
    "pruning": ["PruningCallback"],
    "report": ["Summary"],
    "search": ["create_study"],
    "space": ["Choice", "Float", "Int", "OneMinus", "Space", "Trick", "suggest"],
    "study": ["optimize"],
    "task": ["Task"],
    "trial": ["Epoch", "Result", "train"],
    "tricks": ["ImageTricks", "ModuleTricks", "Tricks"],
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
