"""Checkpoints of running trials: what they hold, and that none can run code when it is read."""

from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from lightning_tricks.task.task import Task
from lightning_tricks.tricks.recipe import Tricks

_REBUILT = ("hyper_parameters", "datamodule_hyper_parameters", "hparams_name", "datamodule_hparams_name")
"""What a Trainer puts into checkpoints beside: any objects of the user's. The task has them."""


NEEDED = {"trial", "state_dict", "loops", "callbacks", "optimizer_states", "lr_schedulers"}
"""What a checkpoint holds. Lightning would go on without some of these, to another score."""


class PlainCheckpoints(TorchCheckpointIO):
    """Write what a trial goes on from, and read it without unpickling."""

    def save_checkpoint(self, checkpoint: dict[str, Any], *rest: Any, **options: Any) -> None:
        kept = {name: value for name, value in checkpoint.items() if name not in _REBUILT}
        super().save_checkpoint(kept, *rest, **options)

    def load_checkpoint(self, path: Any, *unused: Any, **options: Any) -> dict[str, Any]:
        del unused, options
        return read(path)


def read(path: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint, on the CPU.

    Raises:
        pickle.UnpicklingError: if it holds anything but tensors and plain data.
        Exception: many others, if the file is damaged.
    """
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def identity_of(task: Task, tricks: Tricks, seed: int) -> dict[str, Any]:
    """Return what a checkpoint must be of, for a trial to go on from it."""
    return {
        "task": task.name,
        "epochs": task.epochs,
        "recipe": tricks.model_dump(),
        "seed": seed,
        "fingerprint": task.fingerprint,
    }
