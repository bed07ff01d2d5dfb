"""The part of a Trainer that hooks and callbacks of one member of a group use."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_tricks.data.tensor_loader import TensorLoader
from lightning_tricks.fusion.unfusible import Unfusible
from lightning_tricks.surgery.torch_internals import cloned


class _Missing(Unfusible, AttributeError):
    """A callback uses an attribute of Lightning's Trainer that this one lacks."""


class _Strategy:
    """One process."""

    def __init__(self, device: torch.device) -> None:
        self.root_device = device

    def broadcast(self, value: Any) -> Any:
        return value

    def reduce(self, value: Any, **unused: Any) -> Any:
        del unused
        return value


class MemberTrainer:
    """Replaces Lightning's Trainer, which can train only one module.

    It holds the progress of a member; the group does the rest.

    Args:
        module: the member's module.
        loader: the loader of its training batches.
        epochs: the full budget.
        device: the device that trains.
    """

    sanity_checking = False
    world_size, global_rank, is_global_zero = 1, 0, True
    accumulate_grad_batches = 1
    val_check_interval = 1.0
    max_steps = -1

    def __init__(
        self, module: pl.LightningModule, loader: TensorLoader, epochs: int, device: torch.device
    ) -> None:
        self.module, self.train_dataloader, self.max_epochs = module, loader, epochs
        self.num_training_batches = len(loader)
        self.estimated_stepping_batches = epochs * len(loader)
        self.current_epoch = self.global_step = 0
        self.is_last_batch = self.should_stop = False
        self.callback_metrics: dict[str, Tensor] = {}
        self.callbacks: list[pl.Callback] = []
        self.optimizers: list[Optimizer] = []
        self.plateau: dict[str, Any] | None = None
        """The schedule that follows the validation loss; None for schedules that depend only on time."""
        self.state = SimpleNamespace(fn="fit")
        self.strategy = _Strategy(device)
        self.precision_plugin = SimpleNamespace(train_step_context=torch.enable_grad)
        self.fit_loop = SimpleNamespace(state_dict=self.progress, _data_fetcher=None)
        module.trainer = cast("pl.Trainer", self)

    def __getattr__(self, name: str) -> Any:
        raise _Missing(f"a callback uses the Trainer's {name}")

    def progress(self) -> dict[str, int]:
        """Return the member's progress at the end of an epoch."""
        return {"epoch": self.current_epoch + 1, "global_step": self.global_step}

    def call(self, hook: str, *arguments: Any) -> None:
        """Call a hook of all callbacks."""
        for callback in self.having(hook):
            getattr(callback, hook)(self, self.module, *arguments)

    def having(self, hook: str) -> list[pl.Callback]:
        """Return the callbacks that override a hook."""
        nothing = getattr(pl.Callback, hook)
        return [one for one in self.callbacks if getattr(type(one), hook) is not nothing]

    def save_checkpoint(self, path: Path) -> None:
        """Write everything that the member needs to continue."""
        checkpoint: dict[str, Any] = {
            "state_dict": self.module.state_dict(),
            "loops": {},
            "callbacks": {one.state_key: one.state_dict() for one in self.callbacks},
            "optimizer_states": [optimizer.state_dict() for optimizer in self.optimizers],
            "lr_schedulers": [] if self.plateau is None else [self.plateau["scheduler"].state_dict()],
        }
        self.call("on_save_checkpoint", checkpoint)
        torch.save(cloned(checkpoint), path)  # a view would write the whole stack

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Load weights, callbacks and progress; see `load_optimizer`."""
        progress = checkpoint["loops"]["fit_loop"]
        self.current_epoch, self.global_step = progress["epoch"], progress["global_step"]
        self.module.load_state_dict(checkpoint["state_dict"])
        self.call("on_load_checkpoint", checkpoint)
        for callback in self.callbacks:
            if state := checkpoint["callbacks"].get(callback.state_key):
                callback.load_state_dict(state)

    def load_optimizer(self, checkpoint: dict[str, Any]) -> None:
        """Load the state of the optimizer and its schedule."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(state)
        if self.plateau is not None:
            self.plateau["scheduler"].load_state_dict(checkpoint["lr_schedulers"][0])
