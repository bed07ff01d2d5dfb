"""Watch the unchanged network of a task run on the task's data."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from lightning_tricks.errors import InputError, user_code
from lightning_tricks.flavors import flavor_of
from lightning_tricks.module.lightning_internals import check_not_cut_short
from lightning_tricks.surgery.anatomy import Anatomy
from lightning_tricks.surgery.build import build
from lightning_tricks.surgery.replace import replaced_attributes
from lightning_tricks.surgery.uses import recording
from lightning_tricks.surgery.watch import without_trace
from lightning_tricks.task.quiet import quiet, silent_trainer


@dataclass(frozen=True)
class Watched:
    """What a network showed when a batch passed through it, unchanged."""

    anatomy: Anatomy
    logged: tuple[str, ...] = ()
    """Names of the metrics that it logs."""
    late: bool = False
    """Whether its layers change in `setup` or `configure_model`."""
    trains: bool = False
    """Whether it is a LightningModule that its own `configure_optimizers` can train."""
    warning: str = ""
    """Why it cannot; empty if it can, or if it is no LightningModule."""


class Prepared(Exception):
    """Ends a fit before its first batch, once the module is set up."""


class _Stop(pl.Callback):
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        raise Prepared


class _Look(pl.Callback):
    """Notes the structure of a module that is set up, and the parameters that it optimizes."""

    def __init__(self) -> None:
        self.structure = ""
        self.optimized: set[int] = set()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.structure = structure_of(pl_module)
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        self.optimized = {id(parameter) for group in groups for parameter in group["params"]}


def structure_of(network: nn.Module) -> str:
    """Return a description that is equal for networks of the same structure."""
    tensors = [(n, tuple(p.shape), p.requires_grad) for n, p in network.named_parameters()]
    return f"{type(network).__qualname__} {network!r} {tensors}"


def watch_training(
    make: Callable[[], pl.LightningModule],
    data: Callable[[pl.LightningModule], pl.LightningDataModule],
    settings: Mapping[str, Any],
) -> Watched:
    """Train a module on one batch and validate it on one. Return what that showed.

    Args:
        make: makes the module.
        data: returns the data for it.
        settings: arguments of the Trainer.

    Raises:
        InputError: if it fails even without the module's own optimizer.
    """
    try:
        with user_code("training it on a batch fails"):
            return _watch(make(), data, settings)
    except InputError as error:
        warning = str(error)
    with user_code("a first batch cannot be trained"):
        module = make()
        object.__setattr__(module, "configure_optimizers", lambda: None)
        return replace(_watch(module, data, settings), trains=False, warning=warning)


def _watch(
    module: pl.LightningModule,
    data: Callable[[pl.LightningModule], pl.LightningDataModule],
    settings: Mapping[str, Any],
) -> Watched:
    before, look, found = structure_of(module), _Look(), list[Anatomy]()
    with without_trace(), _recorded(module, found):
        trainer = fit_one_batch(module, data(module), settings, [look])
    if not found:
        raise InputError("the training step was never called: is there a training batch?")
    idle = [n for n, p in module.named_parameters() if p.requires_grad and id(p) not in look.optimized]
    later = [n for n, p in module.named_parameters() if not p.requires_grad and id(p) in look.optimized]
    anatomy = found[0].without_idle(idle) if look.optimized else found[0]
    anatomy = replace(anatomy, later=tuple(later))
    logged = tuple(sorted(trainer.callback_metrics))
    return Watched(anatomy, logged, late=look.structure != before, trains=True)


def fit_one_batch(
    module: pl.LightningModule,
    data: pl.LightningDataModule,
    settings: Mapping[str, Any],
    callbacks: Sequence[pl.Callback] = (),
) -> pl.Trainer:
    """Train a module on one batch and validate it on one. Return the Trainer.

    Raises:
        RuntimeError: if the module's own code raised `StopIteration`.
    """
    few: dict[str, Any] = {"limit_train_batches": 1, "limit_val_batches": 1, "max_epochs": 1}
    with quiet():
        trainer = silent_trainer(flavor_of(module), callbacks=callbacks, **{**settings, **few})
        trainer.fit(module, datamodule=data)
    check_not_cut_short(trainer)
    return trainer


@contextmanager
def _recorded(module: pl.LightningModule, found: list[Anatomy]) -> Iterator[None]:
    """Record the anatomy of a module in its first training step."""
    step = module.training_step

    @functools.wraps(step)
    def training_step(*args: Any, **kwargs: Any) -> Any:
        if found:
            return step(*args, **kwargs)
        with recording(module) as seen:
            result = step(*args, **kwargs)
        loss = result["loss"] if isinstance(result, Mapping) else result
        found.append(build(module, seen, loss))
        return result

    with replaced_attributes(module, training_step=training_step):
        yield


def prepare(
    module: pl.LightningModule, data: pl.LightningDataModule, settings: Mapping[str, Any]
) -> None:
    """Run the setup hooks of a module, which may change its layers, as a Trainer does."""
    with contextlib.suppress(Prepared):
        fit_one_batch(module, data, settings, [_Stop()])
    module.trainer = None


def makes_new(make: Callable[[], nn.Module]) -> bool:
    """Tell whether a function makes a new network each time. The random state is not changed."""
    with isolate_rng():
        first, second = make(), make()
    held = {id(module) for module in first.modules()} | {id(p) for p in first.parameters()}
    return not any(id(part) in held for part in (*second.modules(), *second.parameters()))
