"""What is checked before the first trial; kinds that the task cannot take are left out of the search."""

import copy
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.errors import InputError
from lightning_tricks.module.hooks import TricksHooks
from lightning_tricks.module.tricks_module import Batch, TricksModule, accuracy
from lightning_tricks.scores import monitored
from lightning_tricks.space.space import Space
from lightning_tricks.space.trick import stages
from lightning_tricks.surgery.pretrained import same_weights
from lightning_tricks.surgery.unfit import check_fit
from lightning_tricks.task.quiet import SILENT, quiet
from lightning_tricks.task.task import Task, words
from lightning_tricks.tricks.record import LEARNING, SURGERY, Tricks

_FORWARD = ("scaling", *LEARNING)
"""The stages that need a forward of ours, which a LightningModule of the user's has not."""
_FILTERED = (*_FORWARD, *SURGERY)
_LIKE_TRIALS = ("accelerator", "precision")
"""The arguments of the trials' Trainer that a rehearsal takes too."""


@dataclass
class Checked:
    """A space that fits a task."""

    space: Space[Any]
    notes: list[str]
    """What was found, each in a line."""


def check(task: Task, space: Space[Any], devices: int = 1) -> Checked:
    """Pass one batch through a network, so that a mistake shows before the first trial.

    Args:
        task: to be checked.
        space: of its records.
        devices: the number of processes that train a trial together.

    Returns:
        The space without the kinds that find nothing in the network to act on, or do not fit the data
        or the loss. What the baseline has of kinds that are not searched stays as it is.

    Raises:
        InputError: if a trial of several devices is to be repeated, the outputs do not fit the targets,
            what is logged lacks the monitor, or no kind of a stage is left: a pinned one never leaves.
    """
    space.check()
    if devices > 1 < task.repeats:
        raise InputError(
            f"a trial over several devices is trained once (got {devices} devices and {task.repeats} "
            "repeats): leave repeats at 1, or devices per trial at 1"
        )
    if isinstance(task.data, InMemoryData):
        task.data.check_devices(devices)
    checks = _Checks(task, space.around(task.reference()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said again, where the trick is drawn
        checks.run()
    return Checked(checks.space, list(checks.notes()))


@dataclass
class _Checks:
    task: Task
    space: Space[Any]
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """The kinds by stage."""
    reasons: list[str] = field(default_factory=list)
    kept: bool = False
    """Whether the network comes with the same weights each time it is made."""

    def run(self) -> None:
        """Check one thing after another; a later one leans on the space that earlier ones left."""
        network = self._check_weights()
        ours = () if isinstance(network, pl.LightningModule) else _FORWARD
        for stage in [stage for stage in _FILTERED if stage not in ours]:
            self._filter_kinds(stage, self._build)
        module = self.task.module(self.baseline)
        batch = self._check_shapes(module) if isinstance(module, TricksModule) else None
        self._filter_kinds("optimizer", partial(_build_optimizer, module))
        if batch is None:
            self._rehearse(self.task.module(self._with("schedule", "constant")))
            return
        for stage in (*SURGERY, *LEARNING):
            self._filter_kinds(stage, partial(self._learn, stage, batch))

    def notes(self) -> Iterator[str]:
        """Say what the user should know."""
        if self.task.repeats > 1:
            samples = ""
            if isinstance(self.task.data, InMemoryData):
                count = len(self.task.data.splits["validation"].inputs)
                samples = f" (the validation split has {count} samples; --repeats 1: once)"
            times = f"{self.task.repeats} times"
            yield f"every trial trains its record {times}, and its score is the mean{samples}"
        if self.left_out:
            kinds = "; ".join(f"{stage} {', '.join(out)}" for stage, out in self.left_out.items())
            yield f"left out of the search: {kinds} ({'; '.join(self.reasons)})"
        if self.kept and self.space.domains["initialization"].extremes() != ("keep",):
            yield (
                "the backbone comes with the same weights each time, which most trials draw anew: if "
                "they are pretrained, give the task the baseline Tricks.fine_tuning()"
            )

    @property
    def baseline(self) -> Tricks:
        """The record to begin with, as near as the space allows."""
        nearest: Tricks = self.space.nearest(self.task.reference())
        return nearest

    def _check_weights(self) -> nn.Module:
        """Make the network twice, and return it: weights that are drawn differ, loaded ones do not."""
        made: list[nn.Module] = []
        for seed in (0, 1):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                try:
                    made.append(self.task.backbone(self.baseline))
                    check_fit(made[-1])
                    states = [network.state_dict() for network in made]
                except InputError:
                    raise
                except Exception as error:  # the user's code may raise anything
                    raise InputError(f"the backbone cannot be made: {words(error)}") from None
        self.kept = same_weights(*states)
        return made[0]

    def _filter_kinds(self, stage: str, attempt: Any) -> None:
        """Leave out the kinds of a stage that an attempt refuses.

        Raises:
            InputError: if it refuses all.
        """
        kinds = list(self.space.domains[stage].extremes())
        if len(kinds) == 1 and stages(self.task.tricks)[stage][kinds[0]].neutral:
            return  # off in all trials
        refused: dict[str, str] = {}
        for kind in kinds:
            try:
                attempt(self._with(stage, kind))
            except InputError as error:
                refused[kind] = str(error)
        if not refused:
            return
        kind, reason = next(iter(refused.items()))
        if len(refused) == len(kinds):
            raise InputError(f"{reason}; leave {kind!r} out of {stage}")
        self.space = self.space.without(stage, refused)
        self.left_out.setdefault(stage, []).extend(refused)
        self.reasons.append(reason)

    def _with(self, stage: str, kind: Any) -> Tricks:
        """Return the baseline with a kind of a stage; others that may not fit are off."""
        plain = self.task.tricks.plain().model_dump()
        off = {name: plain[name] for name in _FILTERED if stage in _FILTERED}
        if stage == "dropout":  # its places depend on the norms
            del off["normalization"]
        return self.task.tricks.parse({**self.baseline.model_dump(), **off, stage: {"kind": kind}})

    def _build(self, tricks: Tricks) -> None:
        try:
            self.task.module(tricks)
        except InputError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise InputError(f"the backbone cannot be made: {words(error)}") from None

    def _learn(self, stage: str, batch: Batch, tricks: Tricks) -> None:
        """Take the loss of a batch, as in training but in evaluation mode."""
        module = self.task.module(tricks)
        assert isinstance(module, TricksModule)
        module.scaling = None  # it is not fitted
        try:
            with torch.no_grad():
                module.eval().learned_loss(batch)
        except Exception as error:
            raise InputError(
                f"{stage} {getattr(tricks, stage).kind!r} does not fit the backbone, the data or the "
                f"loss: {words(error)}"
            ) from None

    def _check_shapes(self, module: TricksModule) -> Batch:
        """Check the outputs for an example; return a few of its samples."""
        names = [f"val/{name}" for name in ("loss", *self.task.metrics)]
        _check_logged(self.task.monitor, names, "monitor")
        self._check_plateau(names)
        inputs, targets = self.task.example()
        self._filter_kinds("scaling", partial(_check_scaling, module, inputs))
        outputs = _outputs(module, inputs)
        _check_measures(self.task, outputs, targets)
        return inputs[:4], targets[:4]

    def _rehearse(self, module: pl.LightningModule) -> None:
        """Train and validate a user's module on a batch, for what it logs and whether it runs."""
        options = {name: v for name, v in self.task.trainer.items() if name in _LIKE_TRIALS}
        few: dict[str, Any] = dict.fromkeys(("limit_train_batches", "limit_val_batches"), 1)
        try:
            with quiet(), torch.random.fork_rng():
                trainer = pl.Trainer(**SILENT, **options, **few, max_epochs=1, num_sanity_val_steps=0)
                trainer.fit(module, datamodule=self.task.data)
        except InputError:
            raise
        except SystemExit:  # so Lightning answers Ctrl-C
            raise KeyboardInterrupt from None
        except Exception as error:
            raise InputError(f"a first batch cannot be trained: {words(error)}") from None
        finally:
            self.task.data.trainer = None
        monitored(trainer, self.task.monitor)
        self._check_plateau(sorted(trainer.callback_metrics))

    def _check_plateau(self, logged: list[str]) -> None:
        def attempt(tricks: Tricks) -> None:
            if tricks.schedule.kind == "plateau":
                _check_logged(self.task.plateau, logged, "validation_loss")

        self._filter_kinds("schedule", attempt)


def _build_optimizer(module: TricksHooks, tricks: Tricks) -> None:
    subject = module.tricks_subject
    tricks.optimizer.build(tricks.weight_decay.groups(subject), subject)


def _check_scaling(module: TricksModule, inputs: torch.Tensor, tricks: Tricks) -> None:
    if not tricks.scaling.neutral:
        module.check_scalable(inputs)


def _check_logged(name: str, logged: list[str], what: str) -> None:
    if name not in logged:
        raise InputError(f"{what} {name!r} is never logged; must be one of {logged}")


def _outputs(module: TricksModule, inputs: torch.Tensor) -> Any:
    module.eval()
    try:
        with torch.no_grad():
            return module.backbone(module.cast(inputs))
    except Exception as error:
        raise InputError(
            f"the backbone does not take inputs of shape {tuple(inputs.shape)}: {words(error)}"
        ) from None


def _check_measures(task: Task, outputs: Any, targets: torch.Tensor) -> None:
    """Check that the loss and the metrics take the outputs and targets, and return one number."""
    try:
        _check_fit(task, outputs, targets)
        copies = copy.deepcopy(dict(task.metrics))  # some remember what they saw
        measured = {"loss": task.loss, **copies}
        values = {name: f(outputs, targets) for name, f in measured.items()}
    except Exception as error:
        raise InputError(
            f"the backbone's outputs of shape {tuple(getattr(outputs, 'shape', ()))} do not "
            f"fit {len(targets)} targets up to {targets.max().item()}: {words(error)}"
        ) from None
    _check_numbers(values)


def _check_fit(task: Task, outputs: Any, targets: torch.Tensor) -> None:
    if len(outputs) != len(targets):
        raise ValueError("one output a sample is needed")
    if targets.is_floating_point() and outputs.shape != targets.shape:
        raise ValueError("numbers to predict need outputs of the same shape")
    if targets.is_floating_point() and task.loss is F.cross_entropy:
        raise ValueError("numbers to predict need another loss, such as mse_loss")
    if targets.is_floating_point() and any(f is accuracy for f in task.metrics.values()):
        raise ValueError(
            "numbers to predict have no accuracy: give the task other metrics and a monitor, such as "
            "metrics={}, monitor='val/loss', mode='min'"
        )


def _check_numbers(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise InputError(f"{name} must return a tensor of one number (got {type(value)})")
