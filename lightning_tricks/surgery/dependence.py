"""Which places of a network's results depend on which, found by gradients from one layer to another."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lightning_tricks.surgery.anatomy import Layer
from lightning_tricks.surgery.seen import Seen

SMALL = 0.05
"""A gradient relative to another that counts as none. Batch norm passes a little to all places."""
FEW = 0.25
"""The same for means of gradients."""


def results(layers: Sequence[Layer], seen: Seen, *dims: int) -> list[Tensor]:
    """Return the outputs of layers that have one of these numbers of dimensions.

    Those of three dimensions are of layers whose features come last.
    """
    calls = [(layer, seen.calls[layer.path].output) for layer in layers if layer.path in seen.calls]
    return [
        output
        for layer, output in calls
        if isinstance(output, Tensor) and output.dim() in dims and (layer.dims is None) == (dims == (3,))
    ]


def one_sided(maps: Sequence[Tensor]) -> bool:
    """Tell whether along some axis positions depend on one side only, as the pixels of a PixelCNN do.

    This holds however a network does it: with masked kernels, or by padding one side.

    Args:
        maps: the outputs of a network's convolutions, (N, C, …), in the order in which they ran.
    """
    gradient = _between(maps, slice(2, None))
    return gradient is not None and any(
        min(sides) <= SMALL * max(sides) for sides in _sides(gradient.amax((0, 1)))
    )


def axis_of_samples(results: Sequence[Tensor]) -> int:
    """Return 1 if a network mixes places along the first axis but not along the second, else 0.

    So the first axis is of steps and the second of samples, as in torch's recurrent layers by default.

    Args:
        results: outputs of shape (·, ·, features), in the order in which they were computed.
    """
    gradient = _between([one for one in results if one.shape[1] > 1], slice(0, 2))
    if gradient is None:
        return 0
    places = gradient.amax(2)
    step, sample = (size // 2 for size in places.shape)
    places[step, sample] = 0
    steps, samples = places[:, sample].mean(), places[step].mean()
    return int(float(samples) < FEW * float(steps))


def _between(results: Sequence[Tensor], axes: slice) -> Tensor | None:
    """Return how much the central place of a late result depends on each number of an early one.

    Args:
        results: the results in the order in which they were computed.
        axes: the axes of places; the two results are of the same sizes there.

    Returns:
        The gradient's absolute values; None if no two results have more than one place in common.
    """
    trained = [one for one in results if one.requires_grad]
    for last in reversed(trained):
        first = next(one for one in trained if one.shape[axes] == last.shape[axes])
        gradient = None if first is last else _gradient(first, last, axes)
        if gradient is not None and _spread(gradient, axes) > 1:
            return gradient
    return None


def _spread(gradient: Tensor, axes: slice) -> int:
    """Return the number of places that are reached."""
    every = range(gradient.dim())
    others = [axis for axis in every if axis not in every[axes]]
    return int(gradient.amax(others).count_nonzero())


def _gradient(first: Tensor, last: Tensor, axes: slice) -> Tensor | None:
    center = last
    for axis in range(last.dim())[axes]:
        center = center.narrow(axis, last.shape[axis] // 2, 1)
    weights = torch.randn(center.shape, generator=torch.Generator().manual_seed(0))
    total = (center * weights.to(center.device, center.dtype)).sum()
    try:
        (gradient,) = torch.autograd.grad(total, first, retain_graph=True, allow_unused=True)
    except RuntimeError:  # a result that was changed in place, or an operation without a derivative
        return None
    return None if gradient is None else gradient.abs()


def _sides(reached: Tensor) -> Iterator[tuple[float, float]]:
    """Walk the axes that matter, each with the largest values before and after the center."""
    for axis, size in enumerate(reached.shape):
        along = reached.movedim(axis, 0).flatten(1).amax(1)
        center = size // 2
        if 0 < center < size - 1 and along.count_nonzero() > 1:
            yield float(along[:center].max()), float(along[center + 1 :].max())
