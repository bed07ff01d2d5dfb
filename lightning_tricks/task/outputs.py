"""What a plain network returns, and whether the loss and the metrics take it."""

import copy
from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.seed import isolate_rng

from lightning_tricks.errors import InputError, shown, user_code
from lightning_tricks.module.measures import accuracy
from lightning_tricks.module.tricks_module import TricksModule
from lightning_tricks.surgery.graph import functions_called
from lightning_tricks.task.task import Task

_BY_NUMBER = {"mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"}
"""Losses that compare number by number, and broadcast shapes that differ."""
_SHORT = {torch.int8, torch.int16, torch.int32}
"""Integers that torch's cross entropy does not take."""
_NUMBERS = (
    "numbers to predict need another loss, metrics and monitor: give the task, for example, "
    "loss=torch.nn.functional.mse_loss, metrics={}, monitor='val/loss'"
)
_CLASSES = (
    "for one-hot or soft labels give class numbers (targets.argmax(1)), or give the task "
    "loss=torch.nn.CrossEntropyLoss(), metrics={}, monitor='val/loss'"
)


def outputs_of(module: TricksModule, inputs: torch.Tensor) -> Any:
    """Return a plain network's outputs.

    Raises:
        InputError: if it does not take the inputs, or returns neither a tensor nor a tuple.
    """
    module.eval()
    shape = tuple(inputs.shape)
    hint = "put a network that takes several inputs into a LightningModule"
    if len(shape) == 3:
        hint = "images need an axis for their channels, (N, channels, height, width)"
    with user_code(f"the backbone does not take inputs of shape {shape}", hint), torch.no_grad():
        outputs = module.backbone(module.cast(inputs))
    if not isinstance(outputs, (torch.Tensor, tuple)):
        raise InputError(
            f"the backbone must return its outputs as a tensor, such as logits (got "
            f"{type(outputs).__name__}): return that from its forward, or put it into a LightningModule"
        )
    return outputs


def check_measures(task: Task, outputs: Any, targets: torch.Tensor) -> None:
    """Check that the loss and the metrics take the outputs and targets, and return one number.

    Raises:
        InputError: if they do not, or if the loss has parameters.
    """
    if isinstance(task.loss, torch.nn.Module) and any(p.requires_grad for p in task.loss.parameters()):
        raise InputError(
            f"the loss {type(task.loss).__name__} has parameters, which no trial would train: put "
            "network and loss into a LightningModule"
        )
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
        raise ValueError(_CLASSES if _are_shares(targets) else _NUMBERS)
    if targets.dtype in _SHORT and task.loss is F.cross_entropy:
        raise ValueError(f"class numbers must be 64-bit integers: targets.long() (got {targets.dtype})")
    logits = _takes_logits(task, outputs, targets)
    unlike = outputs.shape != targets.shape
    numbers = targets.is_floating_point() and not logits
    if unlike and numbers and _calls(task, outputs, targets, _BY_NUMBER):
        raise ValueError("numbers to predict need outputs of the same shape")
    if unlike and 1 in (outputs.shape[-1], targets.shape[-1]) and _mixes(task, outputs, targets):
        raise ValueError(
            "the loss compares each output with all targets: give it targets of the shape of the outputs"
        )
    if not logits and any(f is accuracy for f in task.metrics.values()):
        _check_accuracy(outputs, targets)


def _check_accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> None:
    """Check that outputs that are no binary logits have an accuracy."""
    single = outputs.dim() == 1 or outputs.shape[1] == 1
    if single and _binary(targets):
        raise ValueError(
            "accuracy takes binary logits, as binary_cross_entropy_with_logits does: give the task that "
            "loss, or other metrics and a monitor"
        )
    if targets.is_floating_point():
        raise ValueError(
            "numbers to predict have no accuracy: give the task other metrics and a monitor, such as "
            "metrics={}, monitor='val/loss'"
        )


def _mixes(task: Task, outputs: torch.Tensor, targets: torch.Tensor) -> bool:
    """Tell whether the loss depends on the targets, but not on which sample each belongs to."""
    if bool((targets == targets[0]).all()):
        return False
    with torch.no_grad(), isolate_rng():
        some = torch.randn(outputs.shape, dtype=outputs.dtype)
        given = (targets, targets.roll(1), torch.zeros_like(targets))
        loss, shuffled, other = (task.loss(some, each) for each in given)
    return bool(torch.isclose(loss, shuffled, rtol=1e-5) & ~torch.isclose(loss, other, rtol=1e-5))


def _binary(targets: torch.Tensor) -> bool:
    return not bool(((targets != 0) & (targets != 1)).any())


def _are_shares(targets: torch.Tensor) -> bool:
    """Tell whether targets are shares of classes, of shape (N, classes)."""
    several = targets.dim() == 2 and targets.shape[1] > 1 and bool((targets >= 0).all())
    return several and bool(torch.isclose(targets.sum(1), targets.new_ones(())).all())


def _calls(task: Task, outputs: torch.Tensor, targets: torch.Tensor, names: Collection[str]) -> bool:
    """Tell whether the loss calls one of some torch functions."""
    with functions_called() as called, torch.no_grad():
        task.loss(outputs, targets)
    return not called.keys().isdisjoint(names)


def _takes_logits(task: Task, outputs: torch.Tensor, targets: torch.Tensor) -> bool:
    """Tell whether the loss takes binary logits, with targets of 0 and 1."""
    if not _binary(targets):
        return False
    return _calls(task, outputs, targets, {"binary_cross_entropy_with_logits", "soft_margin_loss"})


def _check_numbers(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            tensor = isinstance(value, torch.Tensor)
            found = f"one of shape {tuple(value.shape)}" if tensor else shown(value, 60)
            raise InputError(f"{name} must return a tensor of one number (got {found})")
