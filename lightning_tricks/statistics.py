"""The running statistics of batch norm, under weights that were never trained on."""

from collections.abc import Iterable

import pytorch_lightning as pl
import torch
from torch import Tensor, nn


@torch.no_grad()
def refresh_statistics(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Gather the running statistics of batch norm anew over batches of inputs.

    Everything else is in evaluation mode meanwhile: dropout would widen the variance that the
    network has in use.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    modes = {layer: layer.training for layer in module.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    for batch in batches:
        module(batch)
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    for layer, training in modes.items():
        layer.training = training


def training_inputs(trainer: pl.Trainer, module: pl.LightningModule) -> Iterable[Tensor]:
    """Walk the training inputs, leaving the random state of training alone."""
    loader = trainer.train_dataloader or []
    with torch.random.fork_rng():
        for batch in getattr(loader, "whole", loader):
            yield trainer.strategy.batch_to_device(batch[0], module.device)
