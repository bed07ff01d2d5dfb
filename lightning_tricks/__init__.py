"""Every deep-learning training trick of a Lightning module, as a searchable hyperparameter.

A name is imported when it is first used, because torch and MLflow take seconds to import. So an error,
such as a mistyped flag, shows at once.
"""

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_tricks.data.in_memory import InMemoryData
    from lightning_tricks.data.tensor_loader import Split
    from lightning_tricks.errors import InputError
    from lightning_tricks.module.conversion import with_tricks, without_tricks
    from lightning_tricks.module.health import Diverged
    from lightning_tricks.module.tricks_module import TricksModule
    from lightning_tricks.report.summary import Summary
    from lightning_tricks.run.arguments import main
    from lightning_tricks.run.optimize import ablate, optimize
    from lightning_tricks.search.callback import PruningCallback
    from lightning_tricks.search.observer import Observer
    from lightning_tricks.search.studies import create_study, load_study
    from lightning_tricks.space.domains import Choice, Float, Int, OneMinus
    from lightning_tricks.space.space import Space, suggest
    from lightning_tricks.space.trick import Trick
    from lightning_tricks.surgery.norms import declare_norm
    from lightning_tricks.task.backbones import MLP, Backbone, ConvNet, Torchvision
    from lightning_tricks.task.task import Task
    from lightning_tricks.tracking.loading import load_with_tricks
    from lightning_tricks.tracking.recipes import recipe_of_champion, recipe_of_run
    from lightning_tricks.training.train import train
    from lightning_tricks.trial.result import Epoch, Result
    from lightning_tricks.tricks.papers import references
    from lightning_tricks.tricks.recipe import ImageTricks, ModuleTricks, Tricks

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
    "Observer",
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
    "ablate",
    "create_study",
    "declare_norm",
    "load_study",
    "load_with_tricks",
    "main",
    "optimize",
    "recipe_of_champion",
    "recipe_of_run",
    "references",
    "suggest",
    "train",
    "with_tricks",
    "without_tricks",
]

_NAMES = {
    "data.in_memory": ["InMemoryData"],
    "data.tensor_loader": ["Split"],
    "errors": ["InputError"],
    "training.train": ["train"],
    "module.conversion": ["with_tricks", "without_tricks"],
    "module.health": ["Diverged"],
    "module.tricks_module": ["TricksModule"],
    "search.callback": ["PruningCallback"],
    "search.observer": ["Observer"],
    "search.studies": ["create_study", "load_study"],
    "space.domains": ["Choice", "Float", "Int", "OneMinus"],
    "space.space": ["Space", "suggest"],
    "space.trick": ["Trick"],
    "run.arguments": ["main"],
    "run.optimize": ["ablate", "optimize"],
    "report.summary": ["Summary"],
    "surgery.norms": ["declare_norm"],
    "task.backbones": ["MLP", "Backbone", "ConvNet", "Torchvision"],
    "task.task": ["Task"],
    "tracking.loading": ["load_with_tricks"],
    "tracking.recipes": ["recipe_of_champion", "recipe_of_run"],
    "tricks.papers": ["references"],
    "tricks.recipe": ["ImageTricks", "ModuleTricks", "Tricks"],
    "trial.result": ["Epoch", "Result"],
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        meant = get_close_matches(name, __all__, n=1)
        hint = f"; did you mean {meant[0]!r}?" if meant else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
