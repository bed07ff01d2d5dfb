"""One training of a group: everything that it would have alone, except Lightning's Trainer."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.fusion.rows import Penalty, RowOptimizer, is_elementwise
from lightning_tricks.fusion.stack import Stack
from lightning_tricks.fusion.trainer import MemberTrainer
from lightning_tricks.fusion.unfusible import Unfusible
from lightning_tricks.module.tricks_module import TricksModule
from lightning_tricks.trial.callback import TrialCallback
from lightning_tricks.trial.checkpoints import GROUP, read
from lightning_tricks.trial.fit import result_of
from lightning_tricks.trial.result import Paused, Result
from lightning_tricks.trial.training import Training
from lightning_tricks.tricks.acting import batch_stages
from lightning_tricks.tricks.optimizers.formula import FormulaTrick
from lightning_tricks.tricks.optimizers.kernels import DECAYS
from lightning_tricks.tricks.schedules import FactorSchedule


class Member:
    """A training with its module, optimizer, schedule and callbacks.

    Args:
        training: the training to do.
        device: the device that trains.

    Raises:
        Exception: whatever the user's code raises, and `InputError` if a trick finds nothing to act on.
    """

    def __init__(self, training: Training, device: torch.device) -> None:
        self.training, self.task, self.tricks = training, training.task, training.tricks
        self.watcher = TrialCallback(training)
        self.watcher.identity[GROUP] = True  # Lightning's checkpoints have another format
        self.watcher.seed_all = self._seed
        saved = self.watcher.saved()
        self.checkpoint: dict[str, Any] = {} if saved is None else read(saved)
        pl.seed_everything(training.seed, verbose=False)
        module = training.task.module(training.tricks)
        if type(module) is not TricksModule:
            raise Unfusible("a LightningModule has steps of its own")
        self.module = module.to(device)
        self.module.logs_training = False
        self.random = torch.Generator(device)
        """The member's random generator on its device."""
        self._generators = [self.random] if device.type == "cpu" else [torch.Generator(), self.random]
        learning = (getattr(self.tricks, stage) for stage in batch_stages(type(self.tricks)))
        self.changes_batches = not all(trick.neutral for trick in learning)
        data = cast("InMemoryData", training.task.data)
        self.loader, self.validation = data.train_dataloader(), data.val_dataloader()
        self.trainer = MemberTrainer(self.module, self.loader, training.task.epochs, device)
        self.trainer.callbacks = [self.watcher, *self.module.configure_callbacks()]
        if self.checkpoint:
            self.trainer.load(self.checkpoint)
        self.module.on_fit_start()
        self._gradients: list[tuple[Tensor, Tensor]] = []
        """Each parameter with its part of the stack's gradients."""

    @property
    def optimizer(self) -> Optimizer:
        """The member's only optimizer."""
        return self.trainer.optimizers[0]

    @property
    def done(self) -> bool:
        """Whether there is nothing left to train, or not now."""
        ended = self.trainer.should_stop or self.trainer.current_epoch >= self.task.epochs
        return ended or self.watcher.pausing

    def join(self, stack: Stack, place: int) -> None:
        """Set up the optimizer, and load its checkpoint, once the module is in a stack."""
        groups = self.module.parameter_groups()
        penalties = self._penalties(groups, stack)
        trick = self.tricks.optimizer
        if penalties and isinstance(trick, FormulaTrick) and is_elementwise(trick):
            row = stack.weights[place].detach()
            self.trainer.optimizers = [RowOptimizer(row, trick, penalties)]
        else:
            self.trainer.optimizers = [trick.build(groups, self.module.tricks_subject)]
        if not isinstance(self.tricks.schedule, FactorSchedule):
            self.trainer.plateau = self.module.schedule_of(self.optimizer)
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self.move(stack, place)
        if self.checkpoint:
            self.trainer.load_optimizer(self.checkpoint)
            self.checkpoint = {}
        self._follow_schedule()
        self.trainer.call("on_train_start")

    def _penalties(self, groups: Sequence[Mapping[str, Any]], stack: Stack) -> list[Penalty]:
        """Return the penalties on parts of a row; empty if a group is no part or has its own rate."""
        names = {id(parameter): name for name, parameter in self.module.named_parameters()}
        found = []
        for group in groups:
            places = [stack.columns[names[id(parameter)]] for parameter in group["params"]]
            places.sort(key=lambda place: place.start)
            apart = any(one.stop != other.start for one, other in itertools.pairwise(places))
            if apart or group["lr"] != self.tricks.optimizer.lr:
                return []
            coefficients = {name: group[name] for name in DECAYS if name in group}
            found.append(Penalty(slice(places[0].start, places[-1].stop), **coefficients))
        return found

    def move(self, stack: Stack, place: int) -> None:
        """Move to a place in a stack."""
        row = stack.gradients[place]
        self._gradients = [
            (parameter, row[stack.columns[name]].view(parameter.shape))
            for name, parameter in self.module.named_parameters()
            if name in stack.columns
        ]

    def begin_epoch(self) -> None:
        """Draw the order of an epoch."""
        self.trainer.is_last_batch = False
        self.trainer.call("on_train_epoch_start")  # seeds the epoch's random numbers
        self.order = self.loader.order(self.training.seed + self.trainer.current_epoch)
        self.module.train()
        self._after_step = self.trainer.having("on_train_batch_end")
        self._before_step = self.trainer.having("on_train_batch_start")[1:]  # the first is the watcher

    @property
    def plain(self) -> bool:
        """Whether batches are used unchanged, and no callback reads them."""
        return not self.changes_batches and not self._before_step

    def _seed(self, seed: int) -> None:
        for generator in self._generators:
            generator.manual_seed(seed)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Make torch's random state the member's own meanwhile."""
        random = torch.get_rng_state
        torch.set_rng_state(self._generators[0].get_state())
        if on_gpu := len(self._generators) > 1:
            torch.cuda.set_rng_state(self.random.get_state(), self.random.device)
        yield
        self._generators[0].set_state(random())
        if on_gpu:
            self.random.set_state(torch.cuda.get_rng_state(self.random.device))

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Return the inputs and targets of a step."""
        index, (inputs, targets) = self.order[number], self.loader.split
        batch = (inputs[index].to(self.random.device), targets[index].to(self.random.device))
        for callback in self._before_step:
            callback.on_train_batch_start(self.trainer, self.module, batch, number)  # type: ignore[arg-type]
        if not self.changes_batches:
            return self.module.cast(batch[0]), batch[1]
        with self.drawing():
            inputs, targets = self.module.learned(batch)
        return self.module.cast(inputs), targets

    def clip(self, norm: Tensor) -> Tensor:
        """Clip the gradients of the member's row. Return whether that changed them.

        Args:
            norm: the norm of all these gradients.
        """
        self._show_gradients()
        gradients = [gradient for _, gradient in self._gradients]
        with self.drawing():
            return self.tricks.clipping.clip(self.module.tricks_subject, gradients, norm)

    def step(self) -> None:
        """Take a step with an optimizer of its own."""
        self._show_gradients()
        with self.drawing():
            self.optimizer.step()

    def _show_gradients(self) -> None:
        for parameter, gradient in self._gradients:
            parameter.grad = gradient

    def end_step(self, number: int) -> None:
        """Update the learning rate, and run the callbacks, such as averaging."""
        self.trainer.global_step += 1
        self.trainer.is_last_batch = number + 1 == len(self.order)
        self._follow_schedule()
        for callback in self._after_step:
            callback.on_train_batch_end(self.trainer, self.module, None, None, number)  # type: ignore[arg-type]

    def _follow_schedule(self) -> None:
        if isinstance(self.tricks.schedule, FactorSchedule):
            done, steps = self.trainer.global_step, self.trainer.estimated_stepping_batches
            factor = self.tricks.schedule.after(done, steps, self.task.epochs)
            for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor

    def begin_validation(self, health: Mapping[str, float]) -> None:
        """Put the weights to validate into the module."""
        self.module.epoch_metrics = dict(health)
        self.module.eval()
        self.trainer.call("on_validation_start")

    def end_validation(self, metrics: Mapping[str, Tensor]) -> None:
        """Report the epoch and end it.

        Raises:
            Diverged: if the score is not finite.
        """
        self.trainer.callback_metrics = dict(metrics)
        self.trainer.call("on_validation_end")
        self.trainer.call("on_train_epoch_end")
        if self.trainer.plateau is not None:
            self.trainer.plateau["scheduler"].step(metrics[self.trainer.plateau["monitor"]])
        self.trainer.current_epoch += 1

    def look(self) -> None:
        """Stop the member if it should stop; called once all have reported."""
        if self.training.stops() and not self.done:
            self.watcher.stopped = self.trainer.should_stop = True

    def result(self, error: BaseException | None = None) -> Result:
        """Return the result, once the member has left the stack.

        Args:
            error: the error that ended it, if any.
        """
        if error is None and not self.trainer.should_stop and self.watcher.pausing:
            self.watcher.pause(self.module.trainer)
            error = Paused()
        if error is None:
            self.trainer.call("on_train_end")
            self.trainer.call("on_fit_end")
        return result_of(self.watcher, self.module, error)
