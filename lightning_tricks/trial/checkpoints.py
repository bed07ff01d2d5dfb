"""Checkpoints of running trials; reading one never runs code."""

from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from lightning_tricks.task.task import Task
from lightning_tricks.tricks.recipe import Tricks

_REBUILT = ("hyper_parameters", "datamodule_hyper_parameters", "hparams_name", "datamodule_hparams_name")
"""Entries that a Trainer adds: the user's hyperparameters, any objects. The task already has them."""


GROUP = "group"
"""Entry of the identity of a checkpoint that was written in a group."""
NEEDED = {"trial", "state_dict", "loops", "callbacks", "optimizer_states", "lr_schedulers"}
"""Entries that a checkpoint needs. Without some, Lightning would resume to a different score."""


class PlainCheckpoints(TorchCheckpointIO):
    """Writes the checkpoints that a trial resumes from, and reads them without unpickling code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], *rest: Any, **options: Any) -> None:
        kept = {name: value for name, value in checkpoint.items() if name not in _REBUILT}
        super().save_checkpoint(kept, *rest, **options)

    def load_checkpoint(self, path: Any, *unused: Any, **options: Any) -> dict[str, Any]:
        del unused, options
        return read(path)


def read(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint's content, on the CPU.

    Raises:
        pickle.UnpicklingError: if it holds more than tensors and plain data.
        Exception: various others, if the file is damaged.
    """
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def of_group(path: Path | None) -> bool | None:
    """Return whether a checkpoint was written in a group, which alone can resume from it.

    Args:
        path: the checkpoint's path.

    Returns:
        None if there is no checkpoint.
    """
    if path is None or not path.exists():
        return None
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return GROUP in held["trial"]["identity"]
    except Exception:  # it is damaged: whoever resumes from it reports that
        return None


def identity_of(task: Task, tricks: Tricks, seed: int) -> dict[str, Any]:
    """Return the identity that a checkpoint must have for a trial to resume from it."""
    return {
        "task": task.name,
        "epochs": task.epochs,
        "recipe": tricks.model_dump(),
        "seed": seed,
        "fingerprint": task.fingerprint,
    }
