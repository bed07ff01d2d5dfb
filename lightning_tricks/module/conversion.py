"""`with_tricks` gives tricks to a user's LightningModule; `without_tricks` takes them away."""

import copy
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.data import extract_batch_size
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from lightning_tricks.errors import InputError
from lightning_tricks.flavors import is_lightning_module
from lightning_tricks.module.hooks import TricksHooks
from lightning_tricks.module.lightning_internals import trainer_if_any
from lightning_tricks.module.tricks_module import TricksModule
from lightning_tricks.scores import Mode
from lightning_tricks.surgery.anatomy import Anatomy, describe, forget
from lightning_tricks.surgery.layers import DROPOUTS, depth_rate
from lightning_tricks.surgery.replace import replaced_attributes
from lightning_tricks.surgery.torch_internals import names_in
from lightning_tricks.surgery.unfit import check_fit
from lightning_tricks.tricks.acting import forward_stages
from lightning_tricks.tricks.optimizers.own import OwnOptimizer
from lightning_tricks.tricks.recipe import ModuleTricks, Tricks
from lightning_tricks.tricks.schedules import GrowingLambdaLR

_HELD = {
    "tricks",
    "epoch_metrics",
    "logs_training",
    "_watched",
    "_health",
    "_sparse",
    "_singles",
    "_still",
    "_trained",
    "_ends",
    "is_set_up",
}
"""Attributes that tricks add to a LightningModule, and `without_tricks` deletes."""


def with_tricks(
    module: pl.LightningModule,
    tricks: Tricks | Mapping[str, Any],
    *,
    monitor: str = "val/loss",
    mode: Mode = "min",
    validation_loss: str = "val/loss",
    anatomy: Anatomy | None = None,
    copied: bool = True,
) -> TricksHooks:
    """Return a LightningModule that keeps its own forward, steps and loss, and gets tricks.

    Initialization, normalization, residual branches, dropout, weight decay, optimizer, sharpness,
    clipping, schedule, averaging and stopping act on a copy of it. They replace its own
    `configure_optimizers`, `optimizer_step`, `lr_scheduler_step` and `configure_gradient_clipping`;
    Lightning calls its other hooks as before. Tricks that need our forward must be off, as in
    `ModuleTricks`: scaling, augmentation, erasing, mixing and smoothing.

    Args:
        module: a module of either flavor of Lightning, with one loss per step and automatic
            optimization.
        tricks: the recipe, or the plain data of one.
        monitor: the metric that early stopping follows, by the name that the module logs.
        mode: "min" if less of it is better, "max" if more is.
        validation_loss: the metric that the plateau schedule follows.
        anatomy: the module's anatomy; by default we find it with `example_input_array`, or with inputs
            that fit the first layer.
        copied: whether to act on a copy.

    Returns:
        The module, of a subclass of its class.

    Raises:
        InputError: if a trick cannot act on it, or it uses manual optimization.
    """
    if not is_lightning_module(module):
        raise InputError(f"the module must be a LightningModule (got {type(module).__name__})")
    check_fit(module)
    recipe = tricks if isinstance(tricks, Tricks) else ModuleTricks.parse(tricks)
    for stage in forward_stages(type(recipe)):
        if not getattr(recipe, stage).neutral:
            fits = isinstance(recipe, ModuleTricks)
            hint = f"set {stage} to 'none'" if fits else "use tricks=ModuleTricks"
            raise InputError(
                f"{stage} {getattr(recipe, stage).kind!r} needs a forward of TricksModule, and "
                f"{type(module).__name__} has its own: {hint}"
            )
    kind = type(module)
    taken = {*vars(module), *names_in(module), *dir(kind)}
    if clash := sorted(taken & (_ours() | _HELD)):
        raise InputError(f"{kind.__name__} defines {clash}, and tricks need these names: rename them")
    if not module.automatic_optimization:
        raise InputError(
            f"{type(module).__name__} has automatic_optimization off: switch it on, because tricks act "
            "in Lightning's hooks"
        )
    changed = copy.deepcopy(module) if copied else module
    own = {"__module__": kind.__module__, "training_step": _noting_loss(kind.training_step)}
    changed.__class__ = type(kind.__name__, (_WithTricks, kind), own)
    assert isinstance(changed, TricksHooks)
    if anatomy is not None:
        describe(changed, anatomy)
    changed.take_tricks(recipe, monitor, mode, validation_loss)
    return changed


def without_tricks(module: pl.LightningModule) -> nn.Module:
    """Return a copy without the hooks of the tricks, in evaluation mode, on the CPU.

    For a `TricksModule` it is its `network()`; for a user's module it has the user's own class.
    """
    if isinstance(module, TricksModule):
        return module.network()
    plain: pl.LightningModule = detached_copy(module).cpu().eval()
    if not isinstance(module, TricksHooks):
        return plain
    for name in _HELD & vars(plain).keys():
        del plain.__dict__[name]
    forget(plain)
    plain.__class__ = type(module).__bases__[1]
    return plain


def detached_copy(module: pl.LightningModule) -> Any:
    """Return a copy of a module without its Trainer, which would be copied too.

    Tensors that belong to an autograd graph, such as stored losses, are copied without the graph.
    """
    held = (value for part in module.modules() for value in tree_leaves(list(vars(part).values())))
    tensors = [value for value in held if isinstance(value, torch.Tensor) and not value.is_leaf]
    trainer, module.trainer = trainer_if_any(module), None
    try:
        return copy.deepcopy(module, {id(value): value.detach().clone() for value in tensors})
    finally:
        module.trainer = trainer


class _WithTricks(TricksHooks):
    """Base class put before the user's own class; it notes the training losses."""

    def setup(self, stage: str) -> None:
        if stage != "fit" or not self.is_set_up:
            super().setup(stage)

    def schedule_of(self, optimizer: Optimizer) -> dict[str, Any]:
        # The module's code may ask for its schedule, even when the recipe has none.
        steady = {"scheduler": GrowingLambdaLR(optimizer, lambda count: 1.0), "interval": "epoch"}
        return super().schedule_of(optimizer) or steady

    def lr_schedulers(self) -> Any:
        """Return the schedule for the module to read; it can step only its own."""
        held = super().lr_schedulers()
        if isinstance(self.tricks.optimizer, OwnOptimizer) or held is None:
            return held
        shown = copy.copy(held)
        shown.step = lambda *args, **kwargs: None  # type: ignore[method-assign,union-attr]  # one schedule
        return shown

    @contextmanager
    def passing(self) -> Iterator[TricksHooks]:
        """Lend a copy, because a training step may count, keep or send its batches.

        Only dropout is in evaluation mode: a training step may need what others return in training.
        """
        lent = detached_copy(self).train()
        for layer in lent.modules():
            if isinstance(layer, DROPOUTS) or depth_rate(layer):
                layer.eval()
        lent.trainer = self.trainer
        with torch.enable_grad():  # the step may need gradients of its inputs
            yield lent

    def pass_batch(self, batch: Any, batch_idx: int) -> None:
        """Run the training step so that norms gather statistics, without logging."""
        # As in Lightning, the second argument is the batch number, whatever its name.
        numbered = is_param_in_hook_signature(self.training_step, "batch_idx", min_args=2)
        with replaced_attributes(self, log=_silent, log_dict=_silent):
            self.training_step(*((batch, batch_idx) if numbered else (batch,)))


def _silent(*args: Any, **kwargs: Any) -> None:
    """Log nothing."""


def _ours() -> set[str]:
    """Return the names that tricks add to the class of a LightningModule."""
    own = {name for kind in (TricksHooks, _WithTricks) for name in vars(kind) if name[:2] != "__"}
    return {name for name in own if not hasattr(pl.LightningModule, name)}


def _noting_loss(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a training step that notes its loss and keeps the user's signature."""

    @functools.wraps(step)
    def training_step(self: TricksHooks, *args: Any, **kwargs: Any) -> Any:
        batch = args[0] if args else next(iter(kwargs.values()), None)
        if self._singles.possible and self._singles.skips(_size(batch)):
            return None
        result = step(self, *args, **kwargs)
        loss = result["loss"] if isinstance(result, Mapping) else result
        if loss is not None:
            self._health.loss = loss.detach()
        return result

    return training_step


def _size(batch: Any) -> int:
    """Return the number of samples in a batch; 0 if unknown."""
    if isinstance(batch, Iterator):
        return 0  # the step itself takes its batches from it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Lightning warns when it guesses
            return int(extract_batch_size(batch))
    except Exception:  # a batch may be anything
        return 0
