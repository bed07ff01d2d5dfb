"""`TricksModule`: an ordinary LightningModule that hands each of Lightning's hooks to its trick."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_tricks import health
from lightning_tricks.errors import InputError
from lightning_tricks.tricks import Tricks
from lightning_tricks.tricks.scaling import Cast
from lightning_tricks.tricks.stopping import Mode

Batch = tuple[Tensor, Tensor]
Measure = Callable[[Tensor, Tensor], Tensor]


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the share of samples whose largest output is the target class.

    Args:
        outputs: of shape (N, classes).
        targets: class numbers, of shape (N,).
    """
    return (outputs.argmax(1) == targets).float().mean()


class TricksModule(pl.LightningModule):
    """Train an unmodified backbone with every trick of a record.

    The backbone is copied, and the copy changed; it takes inputs of shape (N, …) as they are in the
    data, for their scaling is part of this module. Logs `train/loss`, `val/loss`, `val/<metric>`
    (`test/…` alike) and the gradient health of each epoch.

    Args:
        backbone: any module that maps inputs to outputs of shape (N, classes).
        tricks: the record, or the plain data of one.
        loss: a mean over samples, from outputs and targets.
        metrics: further means over samples, by name.
        monitor: the metric that early stopping looks at.
        mode: whether less or more of it is better.

    Raises:
        InputError: if a trick finds nothing in the backbone to act on.
    """

    def __init__(
        self,
        backbone: nn.Module,
        tricks: Tricks | Mapping[str, Any],
        *,
        loss: Measure = F.cross_entropy,
        metrics: Mapping[str, Measure] = {"accuracy": accuracy},  # never changed
        monitor: str = "val/accuracy",
        mode: Mode = "max",
    ) -> None:
        super().__init__()
        record = tricks if isinstance(tricks, Tricks) else Tricks.parse(tricks)
        self.save_hyperparameters({"tricks": record.model_dump()})
        self.tricks = record
        self.loss, self.metrics, self.monitor, self.mode = loss, dict(metrics), monitor, mode
        self.cast = Cast()
        self.scaling = record.scaling.build()
        self.backbone = copy.deepcopy(backbone)
        record.normalization.apply(self.backbone)
        record.initialization.apply(self.backbone)
        record.normalization.wrap(self.backbone)  # weight norm: once the weights are drawn
        record.dropout.apply(self.backbone)
        self.health = health.GradientHealth()
        self.epoch_metrics: dict[str, float] = {}
        """The training loss and gradient health of the last epoch."""
        self.logs_training = True
        """Whether they are logged. Logging costs; who reads them here can do without."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets this one twice for each hook, some fifty times a step, and torch would look
        # through parameters, buffers and submodules for it each time.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = self.cast(inputs)
        if self.scaling is not None:
            inputs = self.scaling(inputs)
        outputs: Tensor = self.backbone(inputs)
        return outputs

    def network(self) -> nn.Module:
        """Return what answers on raw inputs, without Lightning: in evaluation mode, on the CPU."""
        layers = [self.cast, self.scaling, self.backbone]
        whole = nn.Sequential(*(layer for layer in layers if layer is not None))
        return copy.deepcopy(whole).cpu().eval()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        del batch_idx
        inputs, targets = batch
        loss = self.loss(self(inputs), targets)
        self.health.loss = loss.detach()
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        del batch_idx
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        del batch_idx
        self._evaluate("test", batch)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the outputs for a batch of inputs, with or without targets."""
        del batch_idx
        outputs: Tensor = self(batch[0] if isinstance(batch, (tuple, list)) else batch)
        return outputs

    def configure_optimizers(self) -> OptimizerLRScheduler:
        steps, epochs = self._budget()
        optimizer = self.tricks.optimizer.build(self.tricks.weight_decay.groups(self.backbone))
        schedule = self.tricks.schedule.build(optimizer, steps, epochs)
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": schedule}  # type: ignore[return-value]

    def configure_callbacks(self) -> list[pl.Callback]:
        # Best weights first: they are taken while the average still stands in the module.
        stopping = self.tricks.stopping.callback(self.monitor, self.mode)
        averaging = self.tricks.averaging.callback()
        return [callback for callback in (stopping, averaging) if callback is not None]

    def on_fit_start(self) -> None:
        self._trained = [p for p in self.backbone.parameters() if p.requires_grad]
        self._ends = health.ends(self.backbone, self._trained)
        if self.scaling is not None and not self.scaling.fitted:
            self._budget()  # has Lightning set up the training data
            self.tricks.scaling.fit(self.scaling, (batch[0] for batch in self._train_batches()))
            if self.trainer.world_size > 1:  # each process may have seen other samples
                for name, value in self.scaling.named_buffers():
                    setattr(self.scaling, name, self.trainer.strategy.broadcast(value))

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        del optimizer, gradient_clip_algorithm
        if gradient_clip_val is not None:
            raise InputError(
                f"clipping is the trick {self.tricks.clipping.kind!r} here: leave "
                f"gradient_clip_val of the Trainer at None (got {gradient_clip_val})"
            )
        gradients = [p.grad for p in self._trained if p.grad is not None]
        norms = torch.stack(torch._foreach_norm(gradients))
        total = torch.linalg.vector_norm(norms)
        clipped = self.tricks.clipping.clip(self.backbone, gradients, total)
        self.health.observe(norms, total, clipped)

    def on_validation_start(self) -> None:
        if self.trainer.is_last_batch and not self.trainer.sanity_checking:
            self._sum_up()

    def on_train_epoch_end(self) -> None:
        self._sum_up()
        if self.logs_training:
            self.log_dict(self.epoch_metrics)

    def _sum_up(self) -> None:
        metrics = self.health.summary(self._ends, self.trainer.strategy.reduce)
        self.epoch_metrics = metrics or self.epoch_metrics

    def _evaluate(self, split: str, batch: Batch) -> None:
        inputs, targets = batch
        outputs = self(inputs)
        measured = {name: metric(outputs, targets) for name, metric in self.metrics.items()}
        measured["loss"] = self.loss(outputs, targets)
        self.log_dict(
            {f"{split}/{name}": value for name, value in measured.items()},
            batch_size=len(targets),
            on_step=False,
            on_epoch=True,
            sync_dist=True,
        )

    def _budget(self) -> tuple[int, int]:
        """Return the optimizer steps and the epochs of the whole budget."""
        steps, epochs = self.trainer.estimated_stepping_batches, self.trainer.max_epochs
        if epochs is None or epochs < 1:
            raise InputError(
                f"schedules need the length of training: set max_epochs of the Trainer (got {epochs})"
            )
        return int(steps), epochs

    def _train_batches(self) -> Any:
        loader = self.trainer.train_dataloader or []
        yield from getattr(loader, "whole", loader)
