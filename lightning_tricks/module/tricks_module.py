"""`TricksModule`: an ordinary LightningModule that hands each of Lightning's hooks to its trick."""

import copy
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_tricks.data.loaders import training_batches
from lightning_tricks.errors import InputError
from lightning_tricks.module.class_loss import ClassLoss, class_loss
from lightning_tricks.module.hooks import TricksHooks
from lightning_tricks.module.measures import Measure, accuracy
from lightning_tricks.scores import Mode
from lightning_tricks.surgery.anatomy import Anatomy, describe
from lightning_tricks.surgery.unfit import check_fit
from lightning_tricks.surgery.watch import anatomy_of
from lightning_tricks.tricks.recipe import Tricks
from lightning_tricks.tricks.recipe_types import recipe_of, type_name
from lightning_tricks.tricks.scaling import Cast, takes_tokens
from lightning_tricks.tricks.targets import check_probabilities, probabilities

AUXILIARY = 0.3
"""Weight of each auxiliary head's loss; the main head has weight 1 (Szegedy et al., 2014)."""

Batch = tuple[Tensor, Tensor]


class TricksModule(TricksHooks, pl.LightningModule):
    """A LightningModule that trains an unmodified backbone with every trick of a recipe.

    The tricks change a copy of the backbone. Inputs of shape (N, …) come as they are in the data: this
    module scales them. It logs `train/loss`, `val/loss`, `val/<metric>` (`test/…` likewise) and the
    gradient health of each epoch.

    Args:
        backbone: any module that maps inputs to outputs of shape (N, classes).
        tricks: the recipe, or the plain data of one.
        loss: a mean over samples, from outputs and targets.
        metrics: further means over samples, or metrics of torchmetrics, by name.
        monitor: the metric that early stopping follows.
        mode: "min" if less of it is better, "max" if more is.
        validation_loss: the metric that the plateau schedule follows.
        recipe_type: the type name, from a checkpoint, of a recipe given as plain data.
        anatomy: the backbone's anatomy; by default we find it with inputs that fit its first layer.
        copied: whether to copy the backbone before changing it.

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
        validation_loss: str = "val/loss",
        recipe_type: str = "",
        anatomy: Anatomy | Mapping[str, Any] | None = None,
        copied: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, nn.Module):
            raise InputError(f"the backbone must be an nn.Module (got {type(backbone).__name__})")
        check_fit(backbone)
        recipe = recipe_of(tricks, recipe_type)
        if anatomy is None:
            anatomy = anatomy_of(backbone)
        anatomy = anatomy if isinstance(anatomy, Anatomy) else Anatomy.read(anatomy)
        self.save_hyperparameters(
            {
                "tricks": recipe.model_dump(),
                "recipe_type": type_name(recipe),
                "anatomy": anatomy.plain(),
            }
        )
        self.loss, self.metrics = loss, dict(metrics)
        self._class_loss: ClassLoss | None = None
        self.meters = nn.ModuleDict(
            {
                f"{split} {name}": copy.deepcopy(metric)
                for split in ("val", "test")
                for name, metric in metrics.items()
                if isinstance(metric, Metric)
            }
        )
        self.cast = Cast(tokens=takes_tokens(backbone))
        self.scaling = recipe.scaling.build(anatomy.axes)
        self.backbone = copy.deepcopy(backbone) if copied else backbone
        describe(self.backbone, anatomy)
        self.take_tricks(recipe, monitor, mode, validation_loss)
        self.classes = anatomy.outputs
        self.train()  # a pretrained network may be in evaluation mode, and Lightning keeps that

    @property
    def tricks_subject(self) -> nn.Module:
        """The network whose layers and parameters the tricks act on."""
        return self.backbone

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = self.cast(inputs)
        if self.scaling is not None:
            inputs = self.scaling(inputs)
        outputs: Tensor = self.backbone(inputs)
        return outputs

    def network(self) -> nn.Module:
        """Return a network for raw inputs, without Lightning, in evaluation mode, on the CPU."""
        layers = [self.cast, self.scaling, self.backbone]
        whole = nn.Sequential(*(layer for layer in layers if layer is not None))
        return copy.deepcopy(whole).cpu().eval()

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.scaling is not None and not self.scaling.fitted:
            self._budget()  # makes Lightning set up the training data
            inputs = (self.check_scalable(batch[0]) for batch in training_batches(self.trainer))
            self.tricks.scaling.fit(self.scaling, inputs)
            if self.trainer.world_size > 1:  # processes may have seen different samples
                for name, value in self.scaling.named_buffers():
                    setattr(self.scaling, name, self.trainer.strategy.broadcast(value))

    def check_scalable(self, inputs: Tensor) -> Tensor:
        """Return the inputs if they may be scaled.

        Raises:
            InputError: if they are tokens for an embedding of the backbone.
        """
        if self.cast.keeps(inputs):
            raise InputError(
                f"scaling would change the tokens ({inputs.dtype}) that nn.Embedding looks up: set "
                "scaling to 'none'"
            )
        return inputs

    def pass_batch(self, batch: Batch, batch_idx: int) -> None:
        """Pass the inputs of a batch through the network, as validation would."""
        del batch_idx
        self(batch[0])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        del batch_idx
        if self._singles.skips(len(batch[0])):
            return None
        loss = self.learned_loss(batch)
        self._health.loss = loss.detach()
        return loss

    def learned_loss(self, batch: Batch) -> Tensor:
        """Return the training loss, with changed inputs and targets, and auxiliary heads."""
        inputs, targets = self.learned(batch)
        return self.loss_of(self(inputs), targets)

    def learned(self, batch: Batch) -> Batch:
        """Return the inputs and targets of a training batch as the recipe changes them."""
        inputs, targets = batch
        self._check_still(inputs, targets)
        inputs = self.tricks.erasing.apply(self.tricks.augmentation.apply(inputs))
        if self.tricks.mixing.neutral and self.tricks.smoothing.neutral:
            return self.cast(inputs), targets
        numbers = not targets.is_floating_point()
        if numbers:
            if self._class_loss is None:
                self._class_loss = class_loss(self.loss, targets, self.classes)
            targets = self._class_loss.hide_ignored(targets)
        elif not self.tricks.smoothing.neutral:
            check_probabilities(targets)
        inputs, targets = self.tricks.mixing.mix(self.cast(inputs), targets, self.classes)
        certain = probabilities(targets, self.classes)
        changed = self.tricks.smoothing.smooth(certain, self.classes)
        if numbers and self._class_loss is not None:
            changed = self._class_loss.scaled(certain, changed)
        return inputs, changed

    def _check_still(self, inputs: Tensor, targets: Tensor) -> None:
        """Check that the targets are no images if augmentation moves pixels: they would not move too.

        Raises:
            InputError: if the targets are images.
        """
        images = targets.dim() > 2 and targets.shape[-2:] == inputs.shape[-2:]
        if images and not self.tricks.augmentation.neutral:
            raise InputError(
                f"augmentation {self.tricks.augmentation.kind!r} moves pixels, and the targets are "
                f"images of shape {tuple(targets.shape)} that would not move: set augmentation to 'none'"
            )

    def loss_of(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the loss of the backbone's outputs, auxiliary heads included."""
        main, *others = heads(outputs)
        auxiliary = [AUXILIARY * self.loss(other, targets) for other in others]
        return sum(auxiliary, self.loss(main, targets))

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

    def _evaluate(self, split: str, batch: Batch) -> None:
        inputs, targets = batch
        self.log_dict(
            self.measured(split, self(inputs), targets),
            batch_size=len(targets),
            on_step=False,
            on_epoch=True,
            sync_dist=True,
        )

    def measured(self, split: str, outputs: Any, targets: Tensor) -> dict[str, Any]:
        """Return the loss and the metrics of a batch by their logged names.

        A torchmetrics metric is updated and returned as an object.
        """
        outputs = heads(outputs)[0]
        measured: dict[str, Any] = {}
        for name, metric in self.metrics.items():
            if isinstance(metric, Metric):
                measured[name] = self.meters[f"{split} {name}"]
                measured[name].update(outputs, targets)
            else:
                measured[name] = metric(outputs, targets)
        measured["loss"] = self.loss(outputs, targets)
        return {f"{split}/{name}": value for name, value in measured.items()}


def heads(outputs: Any) -> list[Tensor]:
    """Return the main output, then those of auxiliary heads of its shape, which some networks have."""
    if not isinstance(outputs, tuple):
        return [outputs]
    main, *others = [output for output in outputs if output is not None]
    shape = getattr(main, "shape", None)
    return [main, *(other for other in others if getattr(other, "shape", None) == shape)]
