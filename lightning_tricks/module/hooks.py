"""`TricksHooks`: the tricks that act in Lightning's hooks, for any forward and steps."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import Optimizer

from lightning_tricks.errors import InputError
from lightning_tricks.flavors import adapt, flavor_of
from lightning_tricks.module import health
from lightning_tricks.module.consistency import check_own, warn_of_redrawn_weights
from lightning_tricks.module.lightning_internals import CURRENT_HOOK
from lightning_tricks.module.singles import Singles
from lightning_tricks.scores import Mode
from lightning_tricks.surgery.batch_norm import TrainingBatches
from lightning_tricks.surgery.torch_internals import foreach_norm
from lightning_tricks.surgery.watch import anatomy_of
from lightning_tricks.tricks.length import epochs_of, most_accumulated
from lightning_tricks.tricks.optimizers.own import OwnOptimizer
from lightning_tricks.tricks.recipe import Tricks
from lightning_tricks.tricks.recipe_types import type_name

if TYPE_CHECKING:
    _Module = pl.LightningModule
else:  # the user's own class brings it, of either flavor
    _Module = object

SAVED = "tricks"
"""Key of a checkpoint that holds what `load_checkpoint` needs."""


class TricksHooks(_Module):
    """A LightningModule that hands its hooks to tricks. Call `take_tricks` first.

    A subclass lists this class first, then a LightningModule of either flavor. It logs the training
    loss and the gradient health of each epoch.
    """

    @property
    def tricks_subject(self) -> nn.Module:
        """The network whose layers and parameters the tricks act on."""
        return self

    def take_tricks(
        self, tricks: Tricks, monitor: str, mode: Mode, validation_loss: str = "val/loss"
    ) -> None:
        """Change the layers of the network, and keep what the hooks need.

        Args:
            tricks: the recipe.
            monitor: the metric that early stopping follows.
            mode: "min" if less of it is better, "max" if more is.
            validation_loss: the metric that the plateau schedule follows.

        Raises:
            InputError: if a trick finds nothing in the network to act on.
        """
        self.tricks = tricks
        self._watched: tuple[str, Mode, str] = (monitor, mode, validation_loss)
        self._health = health.GradientHealth()
        self.epoch_metrics: dict[str, float] = {}
        """The training loss and gradient health of the last epoch."""
        self.is_set_up = False
        """Whether `setup` ran before the layers were changed; it must not run again."""
        self.logs_training = True
        """Whether `epoch_metrics` are logged. Logging takes time; readers of the attribute skip it."""
        check_own(tricks)
        warn_of_redrawn_weights(tricks, self.tricks_subject)
        tricks.normalization.apply(self.tricks_subject)
        tricks.initialization.apply(self.tricks_subject)
        tricks.zero_gamma.apply(self.tricks_subject)
        tricks.normalization.wrap(self.tricks_subject)  # weight norm, after drawing weights
        tricks.dropout.apply(self.tricks_subject)
        tricks.stochastic_depth.apply(self.tricks_subject)
        self._still = tricks.transfer.freeze(self.tricks_subject)
        self._singles = Singles(self.tricks_subject)

    def train(self, mode: bool = True) -> Self:
        """Switch to training, except the norms and dropout of frozen layers."""
        super().train(mode)
        for layer in getattr(self, "_still", ()):
            layer.eval()
        return self

    @contextmanager
    def passing(self) -> Iterator["TricksHooks"]:
        """Lend a module to pass batches through, in evaluation mode; its norms gather statistics."""
        yield self.eval()

    def pass_batch(self, batch: Any, batch_idx: int) -> None:
        """Pass a training batch through the network, so that its norms gather statistics."""
        raise NotImplementedError

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        recipe = {"recipe": self.tricks.model_dump(), "recipe_type": type_name(self.tricks)}
        checkpoint[SAVED] = {**recipe, **self.what_it_needs()}

    def what_it_needs(self) -> dict[str, Any]:
        """Return, as plain data, what is needed to make the module again in addition to its recipe."""
        anatomy = anatomy_of(self.tricks_subject)
        return {"watched": list(self._watched), "anatomy": anatomy.plain()}

    def __setattr__(self, name: str, value: Any) -> None:
        # Torch would search parameters, buffers and submodules each time.
        if name == CURRENT_HOOK:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if isinstance(self.tricks.optimizer, OwnOptimizer):
            return super().configure_optimizers()
        optimizer = self.tricks.optimizer.build(self.parameter_groups(), self.tricks_subject)
        schedule = self.schedule_of(optimizer)
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": schedule}  # type: ignore[return-value]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the trainable parameters in groups of one decay and one learning rate each."""
        groups = self.tricks.weight_decay.groups(self.tricks_subject)
        return self.tricks.transfer.split(groups, self.tricks_subject, self.tricks.optimizer.lr)

    def schedule_of(self, optimizer: Optimizer) -> dict[str, Any] | None:
        """Return the schedule of an optimizer as Lightning takes it; None for a constant rate."""
        schedule = self.tricks.schedule.build(optimizer, *self._budget())
        if schedule is not None and "monitor" in schedule:
            schedule["monitor"] = self._watched[2]
            # The validation loss exists only after a validation.
            every = getattr(self.trainer, "check_val_every_n_epoch", 1) or 1
            schedule["frequency"] = every
            plateau = schedule["scheduler"]
            plateau.patience = max(round(plateau.patience / every), 1)
        return schedule

    def configure_callbacks(self) -> list[pl.Callback]:
        own = super().configure_callbacks()
        # The order matters: stopping copies the best weights while the average is in the module, and
        # the average replaces the weights that the optimizer shows.
        monitor, mode, _ = self._watched
        stopping = self.tricks.stopping.callback(monitor, mode)
        averages = (self.tricks.optimizer.callback(), self.tricks.averaging.callback())
        batches = TrainingBatches() if any(averages) else None
        callbacks = (stopping, *averages, batches)
        ours = [callback for callback in callbacks if callback is not None]
        flavor = flavor_of(self)
        return [*(own if isinstance(own, Sequence) else [own]), *(adapt(each, flavor) for each in ours)]

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        del epoch, batch_idx
        losses = []

        def evaluate() -> Any:
            result = optimizer_closure() if optimizer_closure is not None else None
            losses.append(self._health.loss)
            self._health.loss = losses[0]  # at the unperturbed weights
            return result

        optimizer.step(closure=self.tricks.sharpness.closure(self.tricks_subject, evaluate))

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step() if metric is None else scheduler.step(metric)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        batches = most_accumulated(self.trainer)
        if batches > 1 and not self.tricks.sharpness.neutral:
            raise InputError(
                "sharpness takes two passes over one batch: leave accumulate_grad_batches of the "
                f"Trainer at 1 (got {batches})"
            )
        # A float16 loss scaler skips steps with overflowing gradients.
        self._health.skips = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        self._trained = list(self.tricks_subject.parameters())  # some may be unfrozen later
        self._sparse = any(getattr(m, "sparse", False) for m in self.tricks_subject.modules())
        self._ends = health.ends(self.tricks_subject, self._trained)

    @property
    def end_weights(self) -> tuple[nn.Parameter, nn.Parameter]:
        """The weights of the first and the last trained layer; available once training has begun."""
        first, last = self._ends
        return self._trained[first], self._trained[last]

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
        for parameter in self._trained if self._sparse else ():
            if parameter.grad is not None:  # formulas and norms need dense ones
                parameter.grad = parameter.grad.to_dense()
        places = [place for place, p in enumerate(self._trained) if p.grad is not None]
        gradients = [p.grad for p in self._trained if p.grad is not None]
        if not gradients:
            return  # the step had no loss
        norms = torch.stack(foreach_norm(gradients))
        total = torch.linalg.vector_norm(norms)
        if len(places) < len(self._trained):  # some have no gradient
            norms = norms.new_zeros(len(self._trained)).index_copy(
                0, torch.tensor(places, device=norms.device), norms
            )
        clipped = self.tricks.clipping.clip(self.tricks_subject, gradients, total)
        self._health.observe(norms, total, clipped)

    def on_validation_start(self) -> None:
        super().on_validation_start()
        if self.trainer.is_last_batch and not self.trainer.sanity_checking:
            self._sum_up()

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self._sum_up()
        if self.logs_training:
            self.log_dict(self.epoch_metrics)

    def _sum_up(self) -> None:
        metrics = self._health.summary(self._ends, self.trainer.strategy.reduce)
        self.epoch_metrics = metrics or self.epoch_metrics

    def _budget(self) -> tuple[int, int]:
        """Return the optimizer steps and the epochs of the whole budget."""
        steps, epochs = self.trainer.estimated_stepping_batches, epochs_of(self.trainer)
        for trick in (self.tricks.schedule, self.tricks.averaging):
            if trick.needs_steps and steps < 1:
                raise InputError(
                    f"{trick.kind!r} needs the number of steps, and the training loader has no length: "
                    "set limit_train_batches or max_steps of the Trainer"
                )
        return int(steps), epochs
