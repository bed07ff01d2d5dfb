"""The running statistics of batch norm, under weights that were never trained on."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn


@torch.no_grad()
def refresh_statistics(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Gather the running statistics of batch norm anew over the training split.

    Everything else is in evaluation mode meanwhile: dropout would widen the variance that the
    network has in use. The random state of training is left alone.

    Args:
        trainer: whose training batches are walked.
        module: passes one on by its method `pass_batch`.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    if not norms:
        return
    modes = {layer: layer.training for layer in module.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    loader: Any = trainer.train_dataloader or []
    with torch.random.fork_rng(), trainer.precision_plugin.train_step_context():
        for number, batch in enumerate(getattr(loader, "whole", loader)):
            _pass(trainer, module, batch, number)
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    for layer, training in modes.items():
        layer.training = training


def _pass(trainer: pl.Trainer, module: Any, batch: Any, number: int) -> None:
    batch = trainer.precision_plugin.convert_input(batch)
    batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
    module.pass_batch(batch, number)
