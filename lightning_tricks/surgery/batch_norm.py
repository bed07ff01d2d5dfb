"""Running statistics of batch norm for weights that were not trained themselves, such as averages."""

import copy
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from lightning_tricks.surgery.layers import frozen
from lightning_tricks.surgery.torch_internals import BatchNormLayer

REFRESH_BATCHES = 32
"""Number of batches that statistics are gathered from. A walk through a large training split would
cost as much as an epoch, and a mean over a few thousand samples is as good."""
REFRESH_BYTES = 2**28
"""Memory limit for these batches, in bytes; one batch is always kept."""


class TrainingBatches(pl.Callback):
    """Keeps the first batches of each epoch, to gather statistics from them later.

    It never walks a loader: walking one in use, such as a `DataLoader` with persistent workers, takes
    batches away from training.
    """

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.still: set[str] = set()
        """Names of the batch norms that training leaves in evaluation mode, with fixed statistics."""
        self._bytes = 0
        self._used = self._wanted = False

    def take(self) -> list[Any]:
        """Return the kept batches; the next training batch begins a new list."""
        self._used = True
        return self.batches

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del trainer
        self._wanted = bool(batch_norms(pl_module))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del trainer, pl_module
        self._forget()  # a trial resumed from a checkpoint has only this epoch's batches

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        del trainer, pl_module, batch_idx
        if self._used:
            self._forget()
        room = len(self.batches) < REFRESH_BATCHES and self._bytes < REFRESH_BYTES
        if self._wanted and (room or not self.batches):
            self.batches.append(copy.deepcopy(batch))  # a step may change its batch in place
            self._bytes += _bytes(batch)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        del trainer, outputs, batch
        if self._wanted and not batch_idx:
            self.still = {
                name
                for name, layer in pl_module.named_modules()
                if isinstance(layer, BatchNormLayer) and not layer.training
            }

    def _forget(self) -> None:
        self.batches, self._bytes, self._used = [], 0, False


@torch.no_grad()
def refresh_statistics(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Gather the running statistics of batch norm again, from the first batches of the epoch.

    At most 32 batches are used. Dropout is in evaluation mode meanwhile, because it would widen the
    variance. The random state of training is not changed.

    Args:
        trainer: a Trainer with `TrainingBatches` among its callbacks.
        module: a module with the methods `passing` and `pass_batch`.
    """
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # attribute set at runtime
    kept = [callback for callback in callbacks if isinstance(callback, TrainingBatches)]
    batches, still = (kept[0].take(), kept[0].still) if kept else ([], set())
    norms = batch_norms(module, still)
    if not norms or not batches:
        return
    with torch.random.fork_rng(), lend(module) as lent:
        for name, layer in lent.named_modules():
            layer.training &= name not in still
        gathering = batch_norms(lent, still)
        for norm in gathering:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches
            norm.train()
        with trainer.precision_plugin.train_step_context():
            for number, batch in enumerate(batches):
                lent.pass_batch(copy.deepcopy(batch), number)
        for norm, found in zip(norms, gathering, strict=True):
            for name, value in found.named_buffers(recurse=False):
                getattr(norm, name).copy_(value)
    for norm in norms if trainer.world_size > 1 else ():  # each process had its own batches
        for name in ("running_mean", "running_var"):
            getattr(norm, name).copy_(trainer.strategy.reduce(getattr(norm, name), reduce_op="mean"))


def batch_norms(module: nn.Module, still: Collection[str] = ()) -> list[BatchNormLayer]:
    """Return the batch norms of a module that keep running statistics and are not frozen.

    Args:
        module: the module.
        still: names of batch norms whose statistics are fixed.
    """
    named = module.named_modules()
    norms = [m for name, m in named if isinstance(m, BatchNormLayer) and name not in still]
    return [norm for norm in norms if norm.track_running_stats and not frozen(norm)]


@contextmanager
def lend(module: Any) -> Iterator[Any]:
    """Lend the module of `passing`; afterwards modes and momenta of all layers are restored."""
    modes = {layer: layer.training for layer in module.modules()}
    momenta = {norm: norm.momentum for norm in batch_norms(module)}
    try:
        with module.passing() as lent:
            yield lent
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for layer, training in modes.items():
            layer.training = training


def _bytes(batch: Any) -> int:
    sizes: list[int] = []
    apply_to_collection(batch, Tensor, lambda tensor: sizes.append(tensor.nbytes))
    return sum(sizes)
