"""Inputs and outputs of a network: the axis of the features, the number of outputs."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_tricks.surgery.anatomy import Axes, Layer
from lightning_tricks.surgery.seen import Seen

UNLIKE = 3.0
"""Factor between the ranges of deviations along two axes from which one of them is of features."""


def axes_of(inputs: Any, seen: Seen, layers: Sequence[Layer]) -> Axes:
    """Return the axis of the features or channels of inputs, found by the first layer that runs.

    Args:
        inputs: the network's inputs, of shape (N, F), (N, channels, height, width), (N, T, F) or others.
        seen: the record of the run.
        layers: the layers in the order in which they run.
    """
    if not isinstance(inputs, Tensor):
        return Axes()
    return Axes(inputs.dim(), _features(inputs, seen, layers) if inputs.dim() > 1 else None)


def _features(inputs: Tensor, seen: Seen, layers: Sequence[Layer]) -> int | None:
    """Return the axis; None if unknown, such as when the inputs are flattened first."""
    usual = {2: 1, 3: None}.get(inputs.dim(), 1)
    first = next((layer for layer in layers if layer.ran), None)
    call = None if first is None else seen.calls.get(first.path)
    if first is None or call is None or not call.inputs:
        return usual
    given = call.inputs[0]
    if inputs.dim() == 2:  # features, or the steps of one channel
        return None if first.dims is not None and given.dim() > 2 and given.shape[1] == 1 else usual
    found = _axis(inputs, given, last=first.dims is None)
    linear = first.dims is None and len(first.weights) == 1
    if inputs.dim() == 3 and linear and found != 2:
        return _of_units(inputs)  # it may mix the steps of each feature
    return usual if found is None else found


def _of_units(inputs: Tensor) -> int | None:
    """Return the axis, 1 or 2, along which the numbers have different units; None if neither."""
    spreads = [inputs.double().std(dim=(0, 3 - axis)).clamp(min=1e-12) for axis in (1, 2)]
    first, second = (float(spread.max() / spread.min()) for spread in spreads)
    if max(first, second) < UNLIKE * min(first, second):
        return None
    return 1 if first > second else 2


def _axis(inputs: Tensor, given: Tensor, *, last: bool) -> int | None:
    """Return the axis of a network's inputs that became the features of a layer's inputs."""
    axis = -1 if last else min(1, given.dim() - 1)
    width = given.shape[axis]
    axes = [a for a in range(1, inputs.dim()) if inputs.shape[a] == width]
    if given.untyped_storage().data_ptr() == inputs.untyped_storage().data_ptr():  # a view of them
        exact = [a for a in axes if inputs.stride(a) == given.stride(axis)]
        axes = exact if len(exact) == 1 else axes
    if len(axes) > 1 and given.shape == inputs.shape:
        return axis % inputs.dim()
    return axes[0] if len(axes) == 1 else None


def outputs_of(result: Tensor | None, layers: Sequence[Layer]) -> int:
    """Return the number of outputs per sample."""
    if result is not None and result.dim() > 1:
        return int(result.shape[1])
    last = [layer.width for layer in layers if layer.output]
    return last[0] if last else 0
