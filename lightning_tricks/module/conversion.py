"""`with_tricks`: give tricks to a LightningModule of the user's own, and load it again."""

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
from torch.optim.lr_scheduler import LambdaLR
from torch.utils._pytree import tree_leaves

from lightning_tricks.errors import InputError
from lightning_tricks.flavors import is_lightning_module
from lightning_tricks.module.hooks import TricksHooks
from lightning_tricks.module.lightning_internals import trainer_if_any
from lightning_tricks.module.tricks_module import TricksModule
from lightning_tricks.scores import Mode
from lightning_tricks.surgery.anatomy import Anatomy, describe, forget
from lightning_tricks.surgery.torch_internals import names_in
from lightning_tricks.surgery.unfit import check_fit
from lightning_tricks.tricks.recipe import ModuleTricks, Tricks, forward_stages

_OURS = (
    "tricks",
    "tricks_subject",
    "take_tricks",
    "pass_batch",
    "epoch_metrics",
    "logs_training",
    "what_it_needs",
    "is_set_up",
    "passing",
)
"""What a module with tricks has beside what Lightning knows."""
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
"""Those of its attributes that the tricks hold."""


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
    """Give tricks to a LightningModule with a forward, steps and a loss of its own.

    Initialisation, normalization, residual branches, dropout, weight decay, optimizer, sharpness,
    clipping, schedule, averaging and stopping act on a copy of it. Its own `configure_optimizers`,
    `optimizer_step`, `lr_scheduler_step` and `configure_gradient_clipping` are not used; its other hooks
    are called as before. Tricks that need a forward of ours must be off, as they are in `ModuleTricks`:
    scaling, augmentation, erasing, mixing and smoothing.

    Args:
        module: of either flavor of Lightning, with one loss a step, and automatic optimization.
        tricks: the recipe, or the plain data of one.
        monitor: the metric that early stopping looks at, as the module logs it.
        mode: whether less or more of it is better.
        validation_loss: the metric that the plateau schedule looks at.
        anatomy: of the module; by default it is found with inputs that fit its first layer, or
            `example_input_array`.
        copied: whether to act on a copy.

    Returns:
        The module, of a subclass of its class.

    Raises:
        InputError: if a trick cannot act on it, or it optimizes by hand.
    """
    if not is_lightning_module(module):
        raise InputError(f"the module must be a LightningModule (got {type(module).__name__})")
    check_fit(module)
    recipe = tricks if isinstance(tricks, Tricks) else ModuleTricks.parse(tricks)
    for stage in forward_stages(type(recipe)):
        if not getattr(recipe, stage).neutral:
            raise InputError(
                f"{stage} {getattr(recipe, stage).kind!r} needs a forward of TricksModule, and "
                f"{type(module).__name__} has its own: set {stage} to 'none', as ModuleTricks does"
            )
    kind = type(module)
    taken = {*vars(module), *names_in(module), *vars(kind)}
    if clash := sorted(taken & set(_OURS)):
        raise InputError(f"{kind.__name__} has {clash} of its own, which tricks need: rename them")
    if not module.automatic_optimization:
        raise InputError(
            f"{type(module).__name__} has automatic_optimization off: tricks act in Lightning's hooks"
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
    """Return a copy that answers without the hooks of the tricks: in evaluation mode, on the CPU.

    That of a `TricksModule` is its `network()`, that of a user's module one of the user's own class.
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
    """Return a copy of a module without its Trainer, which would be copied with all that it holds.

    Tensors of a graph, as metrics of losses hold, are copied without it.
    """
    held = (value for part in module.modules() for value in tree_leaves(list(vars(part).values())))
    tensors = [value for value in held if isinstance(value, torch.Tensor) and not value.is_leaf]
    trainer, module.trainer = trainer_if_any(module), None
    try:
        return copy.deepcopy(module, {id(value): value.detach().clone() for value in tensors})
    finally:
        module.trainer = trainer


class _WithTricks(TricksHooks):
    """Put before a user's own class, whose training losses it notes."""

    def setup(self, stage: str) -> None:
        if stage != "fit" or not self.is_set_up:
            super().setup(stage)

    def schedule_of(self, optimizer: Optimizer) -> dict[str, Any]:
        # A module may ask for its schedule, where there is none.
        steady = {"scheduler": LambdaLR(optimizer, lambda count: 1.0), "interval": "epoch"}
        return super().schedule_of(optimizer) or steady

    @contextmanager
    def passing(self) -> Iterator[TricksHooks]:
        """Lend a copy: a training step may count, keep or send what it is given."""
        lent = detached_copy(self)
        lent.trainer = self.trainer
        with torch.enable_grad():  # it may differentiate by its inputs
            yield lent

    def pass_batch(self, batch: Any, batch_idx: int) -> None:
        """Run the training step for what norms gather, without logging."""
        # As Lightning does: whatever the second argument is called, it is the number of the batch.
        numbered = is_param_in_hook_signature(self.training_step, "batch_idx", min_args=2)
        with _muted(self, "log", "log_dict"):
            self.training_step(*((batch, batch_idx) if numbered else (batch,)))


def _noting_loss(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a training step whose loss is noted; Lightning reads the signature of the user's."""

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
    """Return the number of samples in a batch; 0 if that cannot be told."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Lightning guesses, and says so
            return int(extract_batch_size(batch))
    except Exception:  # it may be anything
        return 0


@contextmanager
def _muted(module: pl.LightningModule, *methods: str) -> Iterator[None]:
    for name in methods:
        object.__setattr__(module, name, lambda *args, **kwargs: None)
    try:
        yield
    finally:
        for name in methods:
            object.__delattr__(module, name)
