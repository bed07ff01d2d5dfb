"""The validation metrics of a group's members, computed as Lightning computes them."""

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Number
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torchmetrics import Metric

from lightning_tricks.fusion.member import Member
from lightning_tricks.fusion.stack import Stack
from lightning_tricks.fusion.unfusible import Unfusible
from lightning_tricks.trial.result import Interrupted

Attempt = Callable[[Member, Callable[[], None]], None]
"""Function that does something for a member unless it has ended; an error ends the member."""


def measured(
    stack: Stack,
    members: Sequence[Member],
    running: Sequence[tuple[int, Member]],
    attempt: Attempt,
    interrupted: Callable[[], bool],
) -> dict[Member, dict[str, Tensor]]:
    """Return the metrics of members. Those of a member with an error are incomplete.

    Args:
        stack: the stack of all members.
        members: all members.
        running: the members to measure, with their places.
        attempt: does something for one member.
        interrupted: tells whether to stop everything.

    Raises:
        Interrupted: if `interrupted` returns true.
    """
    stack.follow(running[0][1].module)
    loaders = [member.validation for member in members]
    shared = all(loader.split.inputs is loaders[0].split.inputs for loader in loaders)
    means = {member: _Means(member) for _, member in running}
    device = stack.weights.device
    for batches in zip(*(loaders[:1] if shared else loaders), strict=True):
        if interrupted():
            raise Interrupted
        inputs = batches[0][0] if shared else torch.stack([some for some, _ in batches])
        outputs = stack.outputs(inputs.to(device), shared=shared)
        for place, member in running:
            one = tree_map(lambda whole, at=place: whole[at], outputs)
            targets = batches[0 if shared else place][1].to(device)
            attempt(member, partial(means[member].add, one, targets))
    for member, own in means.items():
        attempt(member, own.compute)
    return {member: own.values for member, own in means.items()}


class _Means:
    """The means of a member's metrics over batches, weighted by samples, as in Lightning."""

    def __init__(self, member: Member) -> None:
        self._module = member.module
        self._sums: dict[str, Any] = {}
        self._samples = 0
        self.values: dict[str, Tensor] = {}
        """Metrics by name; empty until `compute`."""

    def add(self, outputs: Any, targets: Tensor) -> None:
        """Measure a batch."""
        for name, value in self._module.measured("val", outputs, targets).items():
            if isinstance(value, Metric):
                self._sums[name] = value
            else:
                self._sums[name] = self._sums.get(name, 0) + _number(value) * len(targets)
        self._samples += len(targets)

    def compute(self) -> None:
        """Compute the means, and reset torchmetrics metrics."""
        for name, value in self._sums.items():
            if isinstance(value, Metric):
                self.values[name] = value.compute()
                value.reset()
            else:
                self.values[name] = value / self._samples


def _number(value: Any) -> Tensor:
    """Return a measured value in a dtype that can be summed.

    Raises:
        Unfusible: if it is not one number; Lightning handles that case.
    """
    wide = torch.promote_types(torch.get_default_dtype(), torch.float32)
    if isinstance(value, Number):
        value = torch.tensor(value, dtype=wide)
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise Unfusible("a metric is not one number")
    return value.detach().squeeze().to(torch.promote_types(value.dtype, wide))
