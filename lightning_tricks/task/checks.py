"""Checks before the first trial. Kinds that do not fit the task are left out of the search."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import pytorch_lightning as pl

from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.errors import InputError
from lightning_tricks.flavors import is_lightning_module
from lightning_tricks.module.hooks import TricksHooks
from lightning_tricks.module.measures import mode_of
from lightning_tricks.module.tricks_module import Batch, TricksModule, heads
from lightning_tricks.space.space import Space
from lightning_tricks.surgery.anatomy import Anatomy
from lightning_tricks.task import rehearsal
from lightning_tricks.task.data_checks import (
    check_batches,
    check_loader,
    labels_from_one,
    unscaled_targets,
)
from lightning_tricks.task.kinds_left import KindsLeft
from lightning_tricks.task.lookups import check_lookups, looks_up_inputs
from lightning_tricks.task.making import made_again
from lightning_tricks.task.outputs import check_measures, outputs_of
from lightning_tricks.task.task import SAMPLES, Task
from lightning_tricks.task.watching import Watched
from lightning_tricks.tricks.acting import batch_stages, forward_stages, layer_stages, weight_stages
from lightning_tricks.tricks.recipe import ModuleTricks, Tricks

_STEPS = ("configure_gradient_clipping", "lr_scheduler_step", "optimizer_step")
"""Hooks of a LightningModule that tricks replace."""


class Checked(NamedTuple):
    """A space that fits a task."""

    space: Space[Any]
    notes: list[str]
    """Findings, one per line."""


def check(task: Task, space: Space[Any], devices: int = 1) -> Checked:
    """Return the space that fits a task; one batch through the network shows mistakes early.

    Args:
        task: the task to check.
        space: the space of its recipes.
        devices: the number of processes that train a trial together.

    Returns:
        The space without the kinds that find nothing in the network to act on, or do not fit the data
        or the loss. The baseline's kinds that are not searched stay unchanged.

    Raises:
        InputError: if a trial on several devices has repeats, the outputs do not fit the targets, the
            monitor is not logged, no kind of a stage is left, or nothing of what is searched. A pinned
            kind is never left out.
    """
    space.check()
    if devices > 1 < task.repeats:
        raise InputError(
            f"a trial over several devices is trained once (got {devices} devices and {task.repeats} "
            "repeats): leave repeats at 1, or devices per trial at 1"
        )
    if isinstance(task.data, InMemoryData):
        task.data.check_devices(devices)
    searched = space.around(task.reference())
    checks = _Checks(task, KindsLeft(task, searched))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the trial that draws the trick warns again
        checks.run()
    if searched.searched() and not checks.kinds.space.searched():
        raise InputError(f"nothing is left to search: {'; '.join(checks.kinds.notes())}")
    return Checked(checks.kinds.space, list(checks.notes()))


@dataclass
class _Checks:
    task: Task
    kinds: KindsLeft
    lines: list[str] = field(default_factory=list)
    """Other findings."""
    kept: bool = False
    """Whether the network has the same weights each time it is made."""

    def run(self) -> None:
        """Run all checks. Each uses the space that the earlier ones left."""
        network, self.kept = made_again(self.task, self.kinds.baseline)
        check_batches(self.kinds)
        self.lines += check_loader(self.kinds)
        if is_lightning_module(network):
            self._check_module(network)
        else:
            self._check_network()

    def _check_network(self) -> None:
        """Check which kinds a plain network takes."""
        anatomy = self.task.watched(self.kinds.baseline).anatomy
        self.lines += anatomy.notes()
        self._keep_fixed_dropout(anatomy)
        for stage in weight_stages(self.task.tricks):
            self.kinds.try_each(stage, partial(rehearsal.build, self.task))
        module, batch = self._check_shapes()
        rehearsal.rehearse_network(self.task, batch, "", module.tricks)
        for stage in (*layer_stages(self.task.tricks), *batch_stages(self.task.tricks)):
            self.kinds.try_each(stage, partial(rehearsal.rehearse_network, self.task, batch, stage))
        self._try_steps(rehearsal.rehearse_network(self.task, batch, "", self.kinds.baseline))

    def _check_module(self, network: pl.LightningModule) -> None:
        """Check which kinds a LightningModule takes: train it on a batch and validate it."""
        if not rehearsal.overrides(network, "validation_step"):
            raise InputError(
                f"{type(network).__name__} has no validation_step, and trials are compared by what it "
                "logs: write one, or set validation data and a monitor that it logs"
            )
        seen = self.task.watched(self.kinds.baseline)
        _check_logged(self.task.monitor, list(seen.logged), "monitor")
        self._check_plateau(list(seen.logged))
        self.lines += seen.anatomy.notes()
        self._say_if_untested(network)
        self._say_what_is_replaced(network, seen)
        for stage in forward_stages(self.task.tricks):
            self.kinds.try_each(stage, partial(rehearsal.build, self.task))
        self._keep_fixed_dropout(seen.anatomy)
        self._keep_what_fits(seen.anatomy)
        made = (*weight_stages(self.task.tricks), *layer_stages(self.task.tricks))
        for stage in (*made, "sharpness", "averaging"):
            self.kinds.try_each(stage, partial(rehearsal.rehearse_module, self.task, stage=stage))
        self._try_steps(
            rehearsal.rehearse_module(self.task, self.kinds.recipe_with("schedule", "constant"))
        )
        self.kinds.try_each("optimizer", partial(rehearsal.rehearse_average, self.task))

    def _try_steps(self, module: TricksHooks) -> None:
        self.kinds.try_each("optimizer", partial(rehearsal.step, module))
        self.kinds.try_each("clipping", partial(rehearsal.check_clipping, module))

    def notes(self) -> Iterator[str]:
        """Yield what the user should know, line by line."""
        yield from self.lines
        if self.task.mode == "max" and mode_of(self.task.monitor, self.task.metrics) is None:
            yield f"more of {self.task.monitor} is taken to be better: if less is, set mode to 'min'"
        if self.task.repeats > 1:
            samples = ""
            if isinstance(self.task.data, InMemoryData):
                count = len(self.task.data.splits["validation"].inputs)
                samples = f" (the validation split has {count} samples; --repeats 1: once)"
            times = f"{self.task.repeats} times"
            yield f"every trial trains its recipe {times}, and its score is the mean{samples}"
        yield from self.kinds.notes()
        if not self.kinds.space.searched():
            yield "nothing is searched: the space holds a single recipe, because all else is pinned"
        if self.kept and self.kinds.of("initialization") != ["keep"]:
            yield (
                "the backbone has the same weights each time it is made, and most trials replace them: "
                "if they are pretrained, give the task the baseline Tricks.fine_tuning()"
            )

    def _say_if_untested(self, network: pl.LightningModule) -> None:
        """Note that the module cannot use the test split."""
        if self.task.tests() and not rehearsal.overrides(network, "test_step"):
            self.lines.append(
                f"the test split is not used, because {type(network).__name__} has no test_step: with "
                "one that logs the score, the verdict compares on samples that chose nothing"
            )

    def _say_what_is_replaced(self, network: pl.LightningModule, seen: Watched) -> None:
        """Note which hooks run only in the trial `yours`, or why there is no such trial."""
        name = type(network).__name__
        if not issubclass(self.task.tricks, ModuleTricks):
            self.lines.append(
                f"no trial trains {name} unchanged: give the task tricks=ModuleTricks, or a subclass"
            )
        elif seen.warning:
            self.lines.append(
                f"no trial trains {name} unchanged, because it cannot train so: {seen.warning}"
            )
        if own := [hook for hook in _STEPS if rehearsal.overrides(network, hook)]:
            self.lines.append(
                f"{', '.join(own)} of {name} run only in trial `yours`: tricks replace them elsewhere"
            )

    def _keep_fixed_dropout(self, anatomy: Anatomy) -> None:
        """Keep the network's own dropout if a rate cannot be changed and the user asked for no kind."""
        fixed = [draw for draw in anatomy.draws if not draw.attribute]
        if not fixed or "dropout" in self.kinds.space.changed:
            return
        reason = (
            f"{fixed[0].path or 'the network'} calls a dropout function with the rate "
            f"{fixed[0].rate:g}, which no attribute holds"
        )
        self.kinds.keep_only("dropout", "own", reason)

    def _keep_what_fits(self, anatomy: Anatomy) -> None:
        """Leave out norms and initializations for attention and copies, unless the user asked."""
        if anatomy.attends or anatomy.copies:
            why = (
                f"{anatomy.copies[0][0]} is a copy of {anatomy.copies[0][1]}, which must stay alike"
                if anatomy.copies
                else "the module has attention, so it keeps its norms and weights"
            )
            for stage, own in (("normalization", "own"), ("initialization", "keep")):
                kinds = self.kinds.of(stage)
                if stage not in self.kinds.space.changed and own in kinds:
                    self.kinds.leave_out(stage, sorted({*kinds} - {own, "torch"}), why)

    def _check_shapes(self) -> tuple[TricksModule, Batch]:
        """Check the outputs for an example. Return a module, and a few of the example's samples."""
        names = [f"val/{name}" for name in ("loss", *self.task.metrics)]
        _check_logged(self.task.monitor, names, "monitor")
        self._check_plateau(names)
        inputs, targets = self.task.example()
        module = rehearsal.build(
            self.task, self.kinds.recipe_with("normalization", self.kinds.off("normalization"))
        )
        assert isinstance(module, TricksModule)
        outputs = heads(outputs_of(module, inputs))[0]
        lookups = partial(check_lookups, module, inputs, looks_up_inputs(module, inputs))
        for stage in ("scaling", "mixing"):
            self.kinds.try_each(stage, lookups)
        check_measures(self.task, outputs, targets)
        self.lines += labels_from_one(self.task.data, outputs)
        self.lines += unscaled_targets(outputs, targets)
        return module, (inputs[:SAMPLES], targets[:SAMPLES])

    def _check_plateau(self, logged: list[str]) -> None:
        rising = [name for name in logged if mode_of(name, self.task.metrics) == "max"]
        others = [name for name in logged if name not in rising]

        def attempt(tricks: Tricks) -> None:
            if tricks.schedule.kind != "plateau":
                return
            if self.task.plateau in rising:
                raise InputError(
                    f"validation_loss {self.task.plateau!r} is no loss: more of it is better"
                )
            _check_logged(self.task.plateau, others, "validation_loss")

        self.kinds.try_each("schedule", attempt)


def _check_logged(name: str, logged: list[str], what: str) -> None:
    if name not in logged:
        choice = f"must be one of {logged}" if logged else "log one in validation_step"
        raise InputError(f"{what} {name!r} is never logged; {choice}")
