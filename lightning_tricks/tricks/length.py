"""The length of a training."""

import math

import pytorch_lightning as pl

from lightning_tricks.errors import InputError


def epochs_of(trainer: pl.Trainer) -> int:
    """Return the epochs of a Trainer's whole budget, which `max_epochs` or `max_steps` may end first.

    Raises:
        InputError: if neither ends it, or if the steps do and the training loader has no length.
    """
    epochs, steps = trainer.max_epochs or -1, trainer.max_steps
    if epochs > 0 and steps < 1:
        return epochs
    if steps > 0 and trainer.train_dataloader is None:
        trainer.fit_loop.setup_data()
    batches = trainer.num_training_batches / trainer.accumulate_grad_batches
    if steps < 1 or not math.isfinite(batches):
        if epochs > 0:
            return epochs
        raise InputError(
            "schedules need the length of training: set max_epochs of the Trainer, or max_steps and a "
            f"training loader with a length (got max_epochs {epochs} and max_steps {steps})"
        )
    by_steps = max(math.ceil(steps / max(math.ceil(batches), 1)), 1)
    return min(epochs, by_steps) if epochs > 0 else by_steps


def most_accumulated(trainer: pl.Trainer) -> int:
    """Return the most batches whose gradients a Trainer, or a callback of it, adds up for one step."""
    callbacks: list[pl.Callback] = getattr(trainer, "callbacks", [])
    scheduled = (getattr(callback, "scheduling", {}).values() for callback in callbacks)
    return max(trainer.accumulate_grad_batches, *(max(each, default=1) for each in scheduled), 1)
