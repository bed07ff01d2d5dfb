"""Learning-rate schedules: factors on the learning rate over the budget.

A schedule spans the full budget of the trial, `max_epochs`, even if the trial stops earlier.
"""

import math
from abc import abstractmethod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from lightning_tricks.space.domains import Float, OneMinus
from lightning_tricks.space.trick import Trick

WARMUP_START = 0.01
"""Share of the learning rate at the start of a warm-up; at zero the first step would be lost."""


class ScheduleTrick(Trick):
    """How the learning rate changes over the budget."""

    needs_steps: ClassVar[bool] = False
    """Whether it needs to know the number of steps of the whole budget."""
    kind: str

    @abstractmethod
    def build(self, optimizer: Optimizer, steps: int, epochs: int) -> dict[str, Any] | None:
        """Return Lightning's `lr_scheduler_config`; None for a constant rate.

        Args:
            optimizer: the optimizer of the learning rates.
            steps: the number of optimizer steps of the whole budget.
            epochs: the number of epochs of the whole budget.
        """


class GrowingLambdaLR(LambdaLR):
    """Torch's `LambdaLR` of one function, for optimizers that get further groups in training.

    Lightning's `BaseFinetuning` adds them. A group keeps the rate that it was added with, and follows
    the function from there.
    """

    def get_lr(self) -> list[Any]:
        factor = self.lr_lambdas[0]
        for group in self.optimizer.param_groups[len(self.base_lrs) :]:
            before = factor(self.last_epoch - 1)
            self.base_lrs.append(group["lr"] / before if before else group["lr"])
        self.lr_lambdas += [factor] * (len(self.base_lrs) - len(self.lr_lambdas))
        return super().get_lr()


class FactorSchedule(ScheduleTrick):
    """A schedule that depends on time alone."""

    interval: ClassVar[Literal["epoch", "step"]] = "epoch"
    """How often the learning rate changes."""

    def build(self, optimizer: Optimizer, steps: int, epochs: int) -> dict[str, Any]:
        per_epoch = 1.0 if self.interval == "epoch" else steps / epochs
        scheduler = GrowingLambdaLR(optimizer, lambda count: self.factor(count / per_epoch, epochs))
        return {"scheduler": scheduler, "interval": self.interval}

    def after(self, done: int, steps: int, epochs: int) -> float:
        """Return the factor on the learning rate after some optimizer steps.

        Args:
            done: the number of optimizer steps done.
            steps: the number of steps of the whole budget.
            epochs: the number of epochs of the whole budget.
        """
        epoch = done * epochs / steps
        return self.factor(math.floor(epoch) if self.interval == "epoch" else epoch, epochs)

    @abstractmethod
    def factor(self, epoch: float, epochs: int) -> float:
        """Return the factor after `epoch` of `epochs` epochs; `epoch` may be a fraction."""


class ConstantSchedule(ScheduleTrick):
    """η stays constant."""

    neutral: ClassVar[bool] = True
    kind: Literal["constant"] = "constant"

    def build(self, optimizer: Optimizer, steps: int, epochs: int) -> None:
        del optimizer, steps, epochs


class ExponentialSchedule(FactorSchedule):
    """η·γᵏ after k epochs.

    When it helps: if the length of a run is not fixed. γ must suit the number of epochs: 0.98 halves
    the rate in 34 epochs, and changes little in ten.
    """

    kind: Literal["exponential"] = "exponential"
    gamma: Annotated[float, OneMinus(2e-3, 0.3)] = Field(default=0.98, gt=0, le=1)

    def factor(self, epoch: float, epochs: int) -> float:
        del epochs
        return self.gamma ** math.floor(epoch)


class StepSchedule(FactorSchedule):
    """Multiplies η by γ each time `every` (a share of the budget) has passed.

    When it helps: with SGD and momentum in long runs, as in published recipes. The time between drops
    is one more thing to tune.
    """

    kind: Literal["step"] = "step"
    every: Annotated[float, Float(0.2, 0.5)] = Field(default=1 / 3, gt=0, le=1)
    gamma: Annotated[float, Float(0.1, 0.5, log=True)] = Field(default=0.1, gt=0, le=1)

    def factor(self, epoch: float, epochs: int) -> float:
        return self.gamma ** (math.floor(epoch) // max(round(self.every * epochs), 1))


class _WarmUp(FactorSchedule):
    """A linear warm-up over a share of the budget, then a fall from η to `final`·η."""

    needs_steps: ClassVar[bool] = True
    interval: ClassVar[Literal["epoch", "step"]] = "step"
    kind: str
    warmup: Annotated[float, Float(0.0, 0.1)] = Field(default=0.05, ge=0, lt=1)
    final: float = Field(default=0.0, ge=0, le=1)

    def factor(self, epoch: float, epochs: int) -> float:
        progress = min(epoch / epochs, 1.0)
        if progress < self.warmup:
            return WARMUP_START + (1 - WARMUP_START) * progress / self.warmup
        return self.final + (1 - self.final) * self.fall((progress - self.warmup) / (1 - self.warmup))

    @abstractmethod
    def fall(self, progress: float) -> float:
        """Return a value that falls from 1 to 0 as progress goes from 0 to 1."""


class LinearSchedule(_WarmUp):
    """Falls in a straight line, after a linear warm-up.

    When it helps: in transformers, fine-tuning and short budgets. While the rate is high, the score lags
    behind that of a constant rate, and a strict pruner stops such trials too early.
    """

    kind: Literal["linear"] = "linear"

    def fall(self, progress: float) -> float:
        return 1 - progress


class CosineSchedule(_WarmUp):
    """Falls as (1 + cos πt)/2, after a linear warm-up (Loshchilov and Hutter, 2017).

    When it helps: nearly always, if the length of the run is known. While the rate is high, the score
    lags behind that of a constant rate, and a strict pruner stops such trials too early.
    """

    kind: Literal["cosine"] = "cosine"

    def fall(self, progress: float) -> float:
        return (1 + math.cos(math.pi * progress)) / 2


class OneCycleSchedule(FactorSchedule):
    """Up from η/25 to η over a share of the budget, then down to η/10⁴, along cosines (Smith, 2018).

    The momentum stays constant.

    When it helps: in short budgets, with a learning rate that is too high to keep: the rate reaches it
    only for a moment.
    """

    needs_steps: ClassVar[bool] = True
    interval: ClassVar[Literal["epoch", "step"]] = "step"
    kind: Literal["one_cycle"] = "one_cycle"
    peak: Annotated[float, Float(0.1, 0.4)] = Field(default=0.25, gt=0, lt=1)
    start: float = Field(default=1 / 25, gt=0, le=1)
    final: float = Field(default=1e-4, ge=0, le=1)

    def factor(self, epoch: float, epochs: int) -> float:
        progress = min(epoch / epochs, 1.0)
        if progress < self.peak:
            return _cosine(self.start, 1.0, progress / self.peak)
        return _cosine(1.0, self.final, (progress - self.peak) / (1 - self.peak))


class PlateauSchedule(ScheduleTrick):
    """Multiplies η by γ if the validation loss has not fallen for `patience` (a share of the budget).

    When it helps: if you do not know when learning slows down. A noisy validation loss makes the rate
    fall too early.
    """

    kind: Literal["plateau"] = "plateau"
    patience: Annotated[float, Float(0.1, 0.3)] = Field(default=0.15, gt=0, le=1)
    gamma: Annotated[float, Float(0.1, 0.5, log=True)] = Field(default=0.3, gt=0, lt=1)

    def build(self, optimizer: Optimizer, steps: int, epochs: int) -> dict[str, Any]:
        del steps
        patience = max(round(self.patience * epochs), 1)
        scheduler = ReduceLROnPlateau(optimizer, factor=self.gamma, patience=patience, eps=0.0)
        return {"scheduler": scheduler, "interval": "epoch", "monitor": "val/loss"}


def _cosine(start: float, end: float, progress: float) -> float:
    """Return the value on half a cosine from start to end; progress goes from 0 to 1."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


class OwnSchedule(ScheduleTrick):
    """The schedule that the LightningModule's `configure_optimizers` returns.

    When it helps: as the reference for the other schedules.
    """

    searched: ClassVar[bool] = False
    kind: Literal["own"] = "own"

    def build(self, optimizer: Optimizer, steps: int, epochs: int) -> None:
        del optimizer, steps, epochs


Schedule = (
    ConstantSchedule
    | ExponentialSchedule
    | StepSchedule
    | LinearSchedule
    | CosineSchedule
    | OneCycleSchedule
    | PlateauSchedule
)
