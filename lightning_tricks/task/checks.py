"""Checks before the first trial. Kinds that do not fit the task are left out of the search."""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.data.batches import batch_size_of
from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.errors import InputError, shown, user_code
from lightning_tricks.flavors import is_lightning_module
from lightning_tricks.module.measures import accuracy
from lightning_tricks.module.singles import ONE_SAMPLE
from lightning_tricks.module.tricks_module import Batch, TricksModule, heads
from lightning_tricks.space.space import Space
from lightning_tricks.space.trick import stages
from lightning_tricks.surgery.anatomy import Anatomy
from lightning_tricks.surgery.graph import functions_called
from lightning_tricks.surgery.pretrained import same_weights
from lightning_tricks.surgery.unfit import check_fit
from lightning_tricks.task import data_facts
from lightning_tricks.task.rehearsal import build, overrides, rehearse_module, rehearse_network, step
from lightning_tricks.task.task import SAMPLES, Task
from lightning_tricks.task.watching import Watched
from lightning_tricks.tricks.acting import batch_stages, forward_stages, layer_stages, weight_stages
from lightning_tricks.tricks.batch import SIZES
from lightning_tricks.tricks.recipe import (
    ModuleTricks,
    Tricks,
)

SIZE = "batch.size.size"
"""Path of the batch size."""
_STEPS = ("configure_gradient_clipping", "lr_scheduler_step", "optimizer_step")
"""Hooks of a LightningModule that tricks replace."""


FEW_PARAMETERS, CALLS = 1_000_000, 6
"""A network with fewer parameters is fast to make, so it is made this many more times."""


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
            monitor is not logged, or no kind of a stage is left. A pinned kind is never left out.
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
        warnings.simplefilter("ignore")  # the trial that draws the trick warns again
        checks.run()
    return Checked(checks.space, list(checks.notes()))


@dataclass
class _Checks:
    task: Task
    space: Space[Any]
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Kinds left out, by stage."""
    reasons: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """Other findings."""
    kept: bool = False
    """Whether the network has the same weights each time it is made."""

    def run(self) -> None:
        """Run all checks. Each uses the space that the earlier ones left."""
        network = self._check_weights()
        self._check_batches()
        if not isinstance(self.task.data, InMemoryData):
            self._check_loader()
        if is_lightning_module(network):
            self._check_module(network)
        else:
            self._check_network()

    def _check_network(self) -> None:
        """Check which kinds a plain network takes."""
        anatomy = self.task.watched(self.baseline).anatomy
        self._say_if_unwatched(anatomy)
        self._keep_fixed_dropout(anatomy)
        for stage in weight_stages(self.task.tricks):
            self._filter_kinds(stage, partial(build, self.task))
        module, batch = self._check_shapes()
        rehearse_network(self.task, batch, "", module.tricks)
        for stage in (*layer_stages(self.task.tricks), *batch_stages(self.task.tricks)):
            self._filter_kinds(stage, partial(rehearse_network, self.task, batch, stage))
        module = rehearse_network(self.task, batch, "", self.baseline)
        self._filter_kinds("optimizer", partial(step, module))

    def _check_module(self, network: pl.LightningModule) -> None:
        """Check which kinds a LightningModule takes: train it on a batch and validate it."""
        if not overrides(network, "validation_step"):
            raise InputError(
                f"{type(network).__name__} has no validation_step, and trials are compared by what it "
                "logs: write one, or set validation data and a monitor that it logs"
            )
        seen = self.task.watched(self.baseline)
        _check_logged(self.task.monitor, list(seen.logged), "monitor")
        self._check_plateau(list(seen.logged))
        self._say_if_unwatched(seen.anatomy)
        self._say_what_is_replaced(network, seen)
        for stage in forward_stages(self.task.tricks):
            self._filter_kinds(stage, partial(build, self.task))
        self._keep_fixed_dropout(seen.anatomy)
        self._keep_what_fits(seen.anatomy)
        made = (*weight_stages(self.task.tricks), *layer_stages(self.task.tricks))
        for stage in (*made, "sharpness", "averaging"):
            self._filter_kinds(stage, partial(rehearse_module, self.task, stage=stage))
        module = rehearse_module(self.task, self._with("schedule", "constant"))
        self._filter_kinds("optimizer", partial(step, module))

    def notes(self) -> Iterator[str]:
        """Yield what the user should know, line by line."""
        yield from self.lines
        if self.task.repeats > 1:
            samples = ""
            if isinstance(self.task.data, InMemoryData):
                count = len(self.task.data.splits["validation"].inputs)
                samples = f" (the validation split has {count} samples; --repeats 1: once)"
            times = f"{self.task.repeats} times"
            yield f"every trial trains its recipe {times}, and its score is the mean{samples}"
        if self.left_out:
            kinds = "; ".join(f"{stage} {', '.join(out)}" for stage, out in self.left_out.items())
            reasons = "; ".join(dict.fromkeys(self.reasons))
            yield f"left out of the search: {kinds} ({reasons})"
        if self.kept and self.space.domains["initialization"].extremes() != ("keep",):
            yield (
                "the backbone has the same weights each time it is made, and most trials replace them: "
                "if they are pretrained, give the task the baseline Tricks.fine_tuning()"
            )

    @property
    def baseline(self) -> Tricks:
        """The recipe of the space that is nearest to the task's baseline."""
        nearest: Tricks = self.space.nearest(self.task.reference())
        return nearest

    def _check_batches(self) -> None:
        """If the batch size is searched, check that it can change, and search around the data's own."""
        if "size" not in self.space.domains["batch"].extremes():
            return
        self._filter_kinds(
            "batch", partial(data_facts.check_batch_size, self.task.data, self.task.rehearsed)
        )
        if "size" not in self.space.domains["batch"].extremes() or SIZE in self.space.changed:
            return
        own, samples = batch_size_of(self.task.data), self.task.samples()
        most = min(4 * own if own else SIZES[-1], samples or SIZES[-1])
        sizes = [size for size in SIZES if (own or SIZES[0]) / 4 <= size <= most]
        self.space = self.space.narrow({SIZE: sizes or [own or 1]})

    def _check_loader(self) -> None:
        """Check what depends on the length of the training loader."""
        loader = data_facts.training_loader(self.task.data, self.task.rehearsed)
        if not data_facts.knows_steps(loader, self.task.trainer):
            for stage in ("schedule", "averaging"):
                self._filter_kinds(stage, partial(_check_steps, stage))
        if data_facts.leaves_one_sample(loader):
            self.lines.append(f"{ONE_SAMPLE}, in trials with it")

    def _check_weights(self) -> nn.Module:
        """Make the network twice and return it. Random weights differ, loaded weights do not."""
        made: list[nn.Module] = []
        for seed in range(2):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                with user_code("the backbone cannot be made"):
                    made.append(self.task.make(self.baseline))
                    check_fit(made[-1])
                    states = [network.state_dict() for network in made]
        self._check_structure(made)
        self.kept = same_weights(*states)
        return made[0]

    def _check_structure(self, made: list[nn.Module]) -> None:
        """Check that one recipe always makes the same layers.

        Raises:
            InputError: if the layers differ.
        """
        few = sum(parameter.numel() for parameter in made[0].parameters()) < FEW_PARAMETERS
        for _ in range(CALLS if few else 0):  # two may be equal by chance
            with torch.random.fork_rng(), user_code("the backbone cannot be made"):
                made.append(self.task.make(self.baseline))
        if len({_layers_of(network) for network in made}) > 1:
            raise InputError(
                "the backbone makes networks of different layers from one recipe: only weights may be "
                "random, so make everything else a field of the recipe, see `tricks` of the task"
            )

    def _say_if_unwatched(self, anatomy: Anatomy) -> None:
        """Note that the network could not be watched, or that some parameters are never trained."""
        if not anatomy.watched:
            self.lines.append(
                "the network could not be watched while it runs: its layers are assumed to run in the "
                f"order in which they were assigned ({anatomy.why})"
            )
        if anatomy.idle:
            self.lines.append(
                f"no trial trains {len(anatomy.idle)} parameters that the module's own optimizer leaves "
                f"out, such as {anatomy.idle[0]}; to train all, set transfer to 'all'"
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
        if own := [hook for hook in _STEPS if overrides(network, hook)]:
            self.lines.append(
                f"{', '.join(own)} of {name} run only in trial `yours`: tricks replace them elsewhere"
            )

    def _keep_fixed_dropout(self, anatomy: Anatomy) -> None:
        """Keep the network's own dropout if a rate cannot be changed and the user asked for no kind."""
        fixed = [draw for draw in anatomy.draws if not draw.attribute]
        if not fixed or "dropout" in self.space.changed:
            return
        reason = (
            f"{fixed[0].path or 'the network'} calls a dropout function with the rate "
            f"{fixed[0].rate:g}, which no attribute holds"
        )
        self.left_out["dropout"] = [k for k in self.space.domains["dropout"].extremes() if k != "own"]
        self.reasons.append(reason)
        self.space = self.space.pin({"dropout": "own"})

    def _keep_what_fits(self, anatomy: Anatomy) -> None:
        """Leave out norms and initializations for attention and copies, unless the user asked."""
        if anatomy.attends or anatomy.copies:
            why = (
                f"{anatomy.copies[0][0]} is a copy of {anatomy.copies[0][1]}, which must stay alike"
                if anatomy.copies
                else "the module has attention, so it keeps its norms and weights"
            )
            for stage, own in (("normalization", "own"), ("initialization", "keep")):
                kinds = set(self.space.domains[stage].extremes()) - {own, "torch"}
                if stage not in self.space.changed and own in self.space.domains[stage].extremes():
                    self._leave_out(stage, sorted(kinds), why)

    def _filter_kinds(self, stage: str, attempt: Callable[[Tricks], Any]) -> None:
        """Leave out the kinds of a stage that an attempt refuses.

        Raises:
            InputError: if it refuses all kinds.
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
            about = reason.startswith((stage, repr(kind)))  # not about another stage
            raise InputError(f"{reason}; leave {kind!r} out of {stage}" if about else reason)
        self._leave_out(stage, list(refused), reason)

    def _leave_out(self, stage: str, kinds: list[str], reason: str) -> None:
        if kinds:
            self.space = self.space.without(stage, kinds)
            self.left_out.setdefault(stage, []).extend(kinds)
            self.reasons.append(reason)

    def _with(self, stage: str, kind: Any) -> Tricks:
        """Return the baseline with a kind of a stage. Other stages that may not fit are off."""
        recipe = self.baseline.model_dump()
        filtered = (*forward_stages(self.task.tricks), *layer_stages(self.task.tricks))
        if stage in (*filtered, *weight_stages(self.task.tricks)):
            off = {name: self._off(name) for name in filtered}
            if stage == "dropout":  # its places depend on the norms
                del off["normalization"]
            recipe |= off
        return self.task.tricks.parse({**recipe, stage: {"kind": kind}})

    def _off(self, stage: str) -> dict[str, str]:
        """Return the kind of a stage that changes the least in this space."""
        kinds = self.space.domains[stage].extremes()
        options = stages(self.task.tricks)[stage]
        neutral = next(kind for kind, option in options.items() if option.neutral)
        untouched = "own" in kinds and getattr(self.baseline, stage).kind == "own"
        return {"kind": "own" if untouched or (neutral not in kinds and "own" in kinds) else neutral}

    def _check_shapes(self) -> tuple[TricksModule, Batch]:
        """Check the outputs for an example. Return a module, and a few of the example's samples."""
        names = [f"val/{name}" for name in ("loss", *self.task.metrics)]
        _check_logged(self.task.monitor, names, "monitor")
        self._check_plateau(names)
        inputs, targets = self.task.example()
        module = build(self.task, self._with("normalization", self._off("normalization")["kind"]))
        assert isinstance(module, TricksModule)
        self._filter_kinds("scaling", partial(_check_scaling, module, inputs))
        outputs = heads(_outputs(module, inputs))[0]
        _check_measures(self.task, outputs, targets)
        return module, (inputs[:SAMPLES], targets[:SAMPLES])

    def _check_plateau(self, logged: list[str]) -> None:
        def attempt(tricks: Tricks) -> None:
            if tricks.schedule.kind == "plateau":
                _check_logged(self.task.plateau, logged, "validation_loss")

        self._filter_kinds("schedule", attempt)


def _layers_of(network: nn.Module) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """Return the layers of a network and the shapes of its parameters."""
    layers = [(name, type(layer).__name__, ()) for name, layer in network.named_modules()]
    sizes = [(name, "", tuple(value.shape)) for name, value in network.named_parameters()]
    return (*layers, *sizes)


def _check_scaling(module: TricksModule, inputs: torch.Tensor, tricks: Tricks) -> None:
    if not tricks.scaling.neutral:
        module.check_scalable(inputs)


def _check_steps(stage: str, tricks: Tricks) -> None:
    trick = getattr(tricks, stage)
    if trick.needs_steps:
        raise InputError(
            f"{stage} {trick.kind!r} needs the number of steps, and the training loader has no length: "
            "set limit_train_batches or max_steps in the task's trainer"
        )


def _check_logged(name: str, logged: list[str], what: str) -> None:
    if name not in logged:
        raise InputError(f"{what} {name!r} is never logged; must be one of {logged}")


def _outputs(module: TricksModule, inputs: torch.Tensor) -> Any:
    module.eval()
    shape = tuple(inputs.shape)
    hint = "put a network that takes several inputs into a LightningModule"
    with user_code(f"the backbone does not take inputs of shape {shape}", hint), torch.no_grad():
        outputs = module.backbone(module.cast(inputs))
    if not isinstance(outputs, (torch.Tensor, tuple)):
        raise InputError(
            f"the backbone must return its outputs as a tensor, such as logits (got "
            f"{type(outputs).__name__}): return that from its forward, or put it into a LightningModule"
        )
    return outputs


def _check_measures(task: Task, outputs: Any, targets: torch.Tensor) -> None:
    """Check that the loss and the metrics take the outputs and targets, and return one number."""
    shape = tuple(getattr(outputs, "shape", ()))
    given = f"outputs of shape {shape} and {len(targets)} targets up to {targets.max().item()}"
    with user_code(f"the backbone's {given} do not fit each other"):
        _check_fit(task, outputs, targets)
        values = {"loss": task.loss(outputs, targets)}
    metrics = copy.deepcopy(dict(task.metrics))  # some keep state
    for name, metric in metrics.items():
        with user_code(f"the metric {name!r} does not take {given}"):
            values[name] = metric(outputs, targets)
    _check_numbers(values)


def _check_fit(task: Task, outputs: Any, targets: torch.Tensor) -> None:
    if len(outputs) != len(targets):
        raise ValueError("one output per sample is needed")
    if targets.is_floating_point() and task.loss is F.cross_entropy:
        raise ValueError("numbers to predict need another loss, such as mse_loss")
    logits = _takes_logits(task, outputs, targets)
    if targets.is_floating_point() and outputs.shape != targets.shape and not logits:
        raise ValueError("numbers to predict need outputs of the same shape")
    scored = any(f is accuracy for f in task.metrics.values())
    single = outputs.dim() == 1 or outputs.shape[1] == 1
    if scored and not logits and single and _binary(targets):
        raise ValueError(
            "accuracy takes binary logits, as binary_cross_entropy_with_logits does: give the task that "
            "loss, or other metrics and a monitor"
        )
    if targets.is_floating_point() and scored and not logits:
        raise ValueError(
            "numbers to predict have no accuracy: give the task other metrics and a monitor, such as "
            "metrics={}, monitor='val/loss', mode='min'"
        )


def _binary(targets: torch.Tensor) -> bool:
    return not bool(((targets != 0) & (targets != 1)).any())


def _takes_logits(task: Task, outputs: torch.Tensor, targets: torch.Tensor) -> bool:
    """Tell whether the loss takes binary logits, with targets of 0 and 1."""
    if not _binary(targets):
        return False
    with functions_called() as called, torch.no_grad():
        task.loss(outputs, targets)
    return bool(called.keys() & {"binary_cross_entropy_with_logits", "soft_margin_loss"})


def _check_numbers(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            tensor = isinstance(value, torch.Tensor)
            found = f"one of shape {tuple(value.shape)}" if tensor else shown(value, 60)
            raise InputError(f"{name} must return a tensor of one number (got {found})")
