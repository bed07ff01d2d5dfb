"""What Lightning has no public call for: the only file that uses names that it may change."""

from typing import Any

import pytorch_lightning as pl

CURRENT_HOOK = "_current_fx_name"
"""Lightning sets this attribute of a module twice for each hook, some fifty times a step."""


def trainer_if_any(module: pl.LightningModule) -> pl.Trainer | None:
    """Return the Trainer that a module is attached to; None where its own property would raise."""
    found: pl.Trainer | None = module._trainer
    return found


def begin_batches_anew(trainer: pl.Trainer) -> None:
    """Have the batches of an epoch drawn again, which Lightning made before its start."""
    iter(trainer.fit_loop._data_fetcher or ())


def check_not_cut_short(trainer: pl.Trainer) -> None:
    """Check that no loop over batches was ended by the user's code, which Lightning takes for its end.

    Raises:
        RuntimeError: if `StopIteration` was raised inside a step.
    """
    if not hasattr(trainer.fit_loop, "epoch_loop"):  # a group has a loop of its own
        return
    training = trainer.fit_loop.epoch_loop
    for progress in (training.batch_progress, training.val_loop.batch_progress):
        current: Any = progress.current
        if current.started > current.processed:
            raise RuntimeError("a step, or the network, raised StopIteration")
