"""The metrics of the members of a group over their validation splits, each as Lightning takes them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torchmetrics import Metric

from lightning_tricks.fusion.member import Member
from lightning_tricks.fusion.stack import Stack
from lightning_tricks.trial.result import Interrupted


def measured(
    stack: Stack,
    members: Sequence[Member],
    running: Sequence[tuple[int, Member]],
    interrupted: Callable[[], bool],
) -> dict[int, dict[str, Tensor]]:
    """Return the metrics of members by their places.

    Args:
        stack: of all members.
        members: all.
        running: those that are asked about, with their places.
        interrupted: tells whether all is to be dropped.

    Raises:
        Interrupted: if it is.
    """
    stack.follow(running[0][1].module)
    loaders = [member.validation for member in members]
    shared = all(loader.split.inputs is loaders[0].split.inputs for loader in loaders)
    means = {place: _Means() for place, _ in running}
    device = stack.weights.device
    for batches in zip(*(loaders[:1] if shared else loaders), strict=True):
        if interrupted():
            raise Interrupted
        inputs = batches[0][0] if shared else torch.stack([some for some, _ in batches])
        outputs = stack.outputs(inputs.to(device), shared=shared)
        for place, member in running:
            own = tree_map(lambda whole, at=place: whole[at], outputs)
            targets = batches[0 if shared else place][1].to(device)
            means[place].add(member.module.measured("val", own, targets), len(targets))
    return {place: found.values() for place, found in means.items()}


class _Means:
    """The means of metrics over batches, by samples, as Lightning takes them."""

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}
        self._samples = 0

    def add(self, measured: Mapping[str, Any], samples: int) -> None:
        for name, value in measured.items():
            if isinstance(value, Metric):
                self._sums[name] = value
            else:
                number = value if value.is_floating_point() else value.to(torch.get_default_dtype())
                self._sums[name] = self._sums.get(name, 0) + number * samples
        self._samples += samples

    def values(self) -> dict[str, Tensor]:
        """Return the means; metrics of torchmetrics begin anew."""
        found = {}
        for name, value in self._sums.items():
            if isinstance(value, Metric):
                found[name] = value.compute()
                value.reset()
            else:
                found[name] = value / self._samples
        return found
