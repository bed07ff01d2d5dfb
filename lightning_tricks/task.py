"""`Task`: what the user brings to a study."""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.adoption import with_tricks
from lightning_tricks.errors import InputError, check_name, in_a_line
from lightning_tricks.hooks import TricksHooks
from lightning_tricks.module import Batch, Measure, TricksModule, accuracy
from lightning_tricks.space import Space
from lightning_tricks.tricks import LEARNING, SURGERY, Tricks
from lightning_tricks.tricks.stopping import Mode


@dataclass(frozen=True)
class Task:
    """A network, data, a loss, a metric and a budget: all that a trial needs but its tricks.

    Args:
        name: names the study, the MLflow experiment and the registered model.
        data: the splits; a Lightning data module.
        backbone: makes the network for a record of tricks; or a LightningModule with a forward, steps
            and a loss of its own, for which `loss` and `metrics` are not used.
        tricks: the type of the records, `Tricks` or a subclass: the search space.
        epochs: the full budget of a trial.
        monitor: the metric that trials are compared by, as it is logged.
        mode: whether less or more of it is better.
        loss: a mean over samples, from outputs and targets.
        metrics: further means over samples, or metrics of torchmetrics, by name.
        trainer: further arguments of Lightning's Trainer, such as `precision="bf16-mixed"` or
            `accumulate_grad_batches=4`.
        channels_last: whether images and convolutions keep the channels of a pixel together.
        compiled: whether the network is compiled by `torch.compile`.
    """

    name: str
    data: pl.LightningDataModule
    backbone: Callable[[Any], nn.Module]
    tricks: type[Tricks] = Tricks
    epochs: int = 20
    monitor: str = "val/accuracy"
    mode: Mode = "max"
    loss: Measure = F.cross_entropy
    metrics: Mapping[str, Measure] = field(default_factory=lambda: {"accuracy": accuracy})
    trainer: Mapping[str, Any] = field(default_factory=dict)
    channels_last: bool = False
    compiled: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)
        if not isinstance(self.epochs, int) or self.epochs < 1:
            raise InputError(f"epochs must be a whole number of at least 1 (got {self.epochs!r})")
        if not isinstance(self.data, pl.LightningDataModule):
            raise InputError(
                f"data must be a LightningDataModule, such as InMemoryData "
                f"(got {type(self.data).__name__})"
            )
        if not (isinstance(self.tricks, type) and issubclass(self.tricks, Tricks)):
            raise InputError(f"tricks must be Tricks or a subclass of it (got {self.tricks!r})")
        if taken := {"max_epochs", "callbacks", "logger"} & set(self.trainer):
            raise InputError(f"trainer must leave {sorted(taken)} to the study")
        if self.mode not in ("min", "max"):
            raise InputError(f"mode must be 'min' or 'max' (got {self.mode!r})")

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Optuna's name for the mode."""
        return "maximize" if self.mode == "max" else "minimize"

    def module(self, tricks: Tricks) -> TricksHooks:
        """Return a new module; its weights come from torch's random state."""
        backbone = self.backbone(tricks)
        if isinstance(backbone, pl.LightningModule):
            loss = self.monitor if self.mode == "min" else "val/loss"
            return with_tricks(
                backbone, tricks, monitor=self.monitor, mode=self.mode, validation_loss=loss
            )
        module = TricksModule(
            backbone,
            tricks,
            loss=self.loss,
            metrics=self.metrics,
            monitor=self.monitor,
            mode=self.mode,
        )
        if self.channels_last:
            module.to(memory_format=torch.channels_last)
        if self.compiled:
            module.backbone.compile()
        return module

    def check(self, space: Space[Any]) -> None:
        """Pass one batch through a network, so that a mistake shows before the first trial.

        Raises:
            InputError: if the outputs do not fit the targets, what is logged lacks the monitor, or
                a trick that the space holds finds nothing in the backbone to act on.
        """
        space.check()
        baseline: Tricks = space.nearest(self.tricks())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said again, where the trick is drawn
            for stage in SURGERY:
                for kind in space.domains[stage].extremes():
                    self._check_surgery(baseline, stage, kind)
            module = self.module(baseline)
            batch = self._check_shapes(module)
            for kind in space.domains["optimizer"].extremes():
                self._check_optimizer(module, kind)
            if batch is None:
                return
            for stage in (*SURGERY, *LEARNING):
                for kind in space.domains[stage].extremes():
                    self._check_learning(baseline, stage, kind, batch)

    def _check_surgery(self, baseline: Tricks, stage: str, kind: Any) -> None:
        changed = self.tricks.parse({**baseline.model_dump(), stage: {"kind": kind}})
        try:
            self.module(changed)
        except InputError as error:
            raise InputError(f"{error}; leave {kind!r} out of {stage}") from None
        except Exception as error:  # the user's code may raise anything
            raise InputError(f"the backbone cannot be made: {_words(error)}") from None

    def _check_optimizer(self, module: TricksHooks, kind: Any) -> None:
        tricks = self.tricks.parse({**module.tricks.model_dump(), "optimizer": {"kind": kind}})
        subject = module.tricks_subject
        try:
            tricks.optimizer.build(tricks.weight_decay.groups(subject), subject)
        except InputError as error:
            raise InputError(f"{error}; leave {kind!r} out of optimizer") from None

    def _check_learning(self, baseline: Tricks, stage: str, kind: Any, batch: Batch) -> None:
        off = {"scaling": {"kind": "none"}, stage: {"kind": kind}}
        module = self.module(self.tricks.parse({**baseline.model_dump(), **off}))
        if not isinstance(module, TricksModule):
            return  # it does not learn from what these stages change
        try:
            with torch.no_grad():
                module.eval().learned_loss(batch)
        except Exception as error:
            raise InputError(
                f"{stage} {kind!r} does not fit the backbone, the data or the loss: {_words(error)}; "
                f"leave {kind!r} out of {stage}"
            ) from None

    def _check_shapes(self, module: TricksHooks) -> Batch | None:
        """Check the outputs for an example; return a few of its samples, None where it has none."""
        if not isinstance(module, TricksModule):
            return None  # what goes in, comes out and is logged is the user's affair
        names = [f"val/{name}" for name in ("loss", *self.metrics)]
        if self.monitor not in names:
            raise InputError(f"monitor {self.monitor!r} is never logged; must be one of {names}")
        inputs, targets = self.example()
        module.eval()
        try:
            with torch.no_grad():
                outputs = module.backbone(module.cast(inputs))
        except Exception as error:
            raise InputError(
                f"the backbone does not take inputs of shape {tuple(inputs.shape)}: {_words(error)}"
            ) from None
        try:
            if len(outputs) != len(targets):
                raise ValueError("one output a sample is needed")
            if targets.is_floating_point() and outputs.shape != targets.shape:
                raise ValueError("numbers to predict need outputs of the same shape")
            if targets.is_floating_point() and self.loss is F.cross_entropy:
                raise ValueError("numbers to predict need another loss, such as mse_loss")
            loss = self.loss(outputs, targets)
            copies = copy.deepcopy(dict(self.metrics))  # some remember what they saw
            measured = {name: f(outputs, targets) for name, f in copies.items()}
        except Exception as error:
            raise InputError(
                f"the backbone's outputs of shape {tuple(getattr(outputs, 'shape', ()))} do not "
                f"fit {len(targets)} targets up to {targets.max().item()}: {_words(error)}"
            ) from None
        for name, value in {"loss": loss, **measured}.items():
            if not isinstance(value, torch.Tensor) or value.numel() != 1:
                raise InputError(f"{name} must return a tensor of one number (got {type(value)})")
        return inputs[:4], targets[:4]

    def example(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the first validation batch, as the data module gives it."""
        try:
            self.data.prepare_data()
            self.data.setup("fit")
            inputs, targets = next(iter(self.data.val_dataloader()))
            return inputs.cpu(), targets.cpu()
        except Exception as error:
            raise InputError(
                f"val_dataloader() must give batches of (inputs, targets): {_words(error)}"
            ) from None

    def samples(self) -> int | None:
        """Return the number of training samples, where the data module can tell."""
        splits = getattr(self.data, "splits", None)
        return len(splits["train"].inputs) if splits else None


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {in_a_line(error)}"
