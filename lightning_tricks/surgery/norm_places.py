"""Put norms into a network, swap them, move them and take them out."""

import itertools
from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor, nn

from lightning_tricks.surgery.layers import (
    ACTIVATIONS,
    Weighted,
    add_bias,
    called_layers,
    drop_bias,
    frozen,
    weighted_layers,
)
from lightning_tricks.surgery.norms import after_norm, declare_norm, known, norm_layers
from lightning_tricks.surgery.replace import put_beside, refill, replace_everywhere, sequentials
from lightning_tricks.surgery.torch_internals import BatchNormLayer, BatchOrInstanceNorm

Position = Literal["before", "after"]


class Place(NamedTuple):
    """What a norm layer is to normalize."""

    width: int
    """The number of features or channels."""
    last: bool
    """Whether they are the last dimension, as after a linear layer, or the first after the batch."""
    dims: int | None
    """The number of dimensions beside batch and channels; None if that cannot be told."""


class _AnyDims(BatchNormLayer):
    def _check_input_dim(self, input: Tensor) -> None:
        del input


@declare_norm
class FreeBatchNorm(_AnyDims):
    """Batch norm of the second dimension, however many follow."""


@declare_norm
class LastBatchNorm(_AnyDims):
    """Batch norm of the last dimension, however many there are before."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(-1, 1)).movedim(1, -1)


@declare_norm
class LastGroupNorm(nn.GroupNorm):
    """Group norm of the last dimension: of each position on its own."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.reshape(-1, input.shape[-1])).view_as(input)


def beside(layer: Weighted) -> Place:
    """Return the place of a norm for the outputs of a weighted layer."""
    if isinstance(layer, nn.Linear):
        return Place(layer.out_features, last=True, dims=None)
    return Place(layer.out_channels, last=False, dims=len(layer.kernel_size))


def standing(norm: nn.Module) -> Place | None:
    """Return the place that a norm layer has; None if it does not tell."""
    if isinstance(norm, LastBatchNorm | LastGroupNorm):
        width = norm.num_features if isinstance(norm, LastBatchNorm) else norm.num_channels
        return Place(width, last=True, dims=None)
    if isinstance(norm, nn.GroupNorm):
        return Place(norm.num_channels, last=False, dims=None)
    if isinstance(norm, BatchOrInstanceNorm):
        dims = next((d for d in (1, 2, 3) if f"{d}d" in type(norm).__name__), None)
        return Place(norm.num_features, last=False, dims=dims)
    if isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        # Torchvision's and timm's `LayerNorm2d` work on the channels of images.
        dims = 2 if "2d" in type(norm).__name__ else len(norm.normalized_shape) - 1
        return Place(norm.normalized_shape[0], last=not dims, dims=dims or None)
    return None


def remove_norms(module: nn.Module) -> int:
    """Take out every known norm layer, and return how many; layers without a bias get one."""
    norms = norm_layers(module)
    gone = {id(norm) for norm in norms if not after_norm(norm)}
    for container in sequentials(module):
        kept = [child for child in container if id(child) not in gone]
        if len(kept) < len(container):
            refill(container, kept)
    for norm in norms:
        _replace(module, norm, nn.Identity())
    for layer in weighted_layers(module) if norms else ():
        add_bias(layer)
    return len(norms)


def swap_norms(module: nn.Module, make: Callable[[Place], nn.Module]) -> int:
    """Put new norms in the places of the known ones that a module has; return how many."""
    swapped = 0
    for norm in norm_layers(module):
        place = standing(norm)
        _replace(module, norm, nn.Identity() if place is None else make(place))
        swapped += place is not None
    return swapped


def _replace(module: nn.Module, norm: nn.Module, new: nn.Module) -> None:
    """Put something in the place of a norm; what the norm does with its result stays."""
    after = after_norm(norm)
    replace_everywhere(module, norm, nn.Sequential(new, *after) if after else new)


def insert_norms(module: nn.Module, make: Callable[[Place], nn.Module]) -> int:
    """Put a norm behind every hidden layer, and return how many.

    Outside of `nn.Sequential` the layer becomes one, of itself and the norm. The projections of
    `nn.MultiheadAttention` are left alone: it reads their weights.
    """
    hidden = called_layers(module)[:-1]
    for layer in hidden:
        put_beside(module, layer, after=make(beside(layer)))
    return len(hidden)


def move_norms(module: nn.Module, position: Position) -> int:
    """Put the norms of hidden layers before or after the activation that follows at once.

    A layer loses its bias where a norm that takes it off again comes next, and gets one where the norm
    is moved away. Returns how many norms have an activation beside them in an `nn.Sequential`.
    """
    count = 0
    for container in sequentials(module):
        children = list(container)
        for index in range(len(children) - 2):
            layer, *pair = children[index : index + 3]
            if not isinstance(layer, Weighted):
                continue
            norms = [known(child) for child in pair]
            acts = [isinstance(child, ACTIVATIONS) for child in pair]
            if norms == [True, False] == acts[::-1] or acts == [True, False] == norms[::-1]:
                count += 1
                if norms[0] != (position == "before"):
                    children[index + 1 : index + 3] = pair[::-1]
                    add_bias(layer)
        for layer, following in itertools.pairwise(children):
            if isinstance(layer, Weighted) and _cancels_bias(layer, following):
                drop_bias(layer)
        refill(container, children)
    return count


def _cancels_bias(layer: Weighted, following: nn.Module) -> bool:
    """Tell whether what follows subtracts the mean of each channel, and a bias with it.

    Layer and group norm take the mean over channels with different biases. Instance norm behind a
    linear layer takes it over its features.
    """
    kind = BatchNormLayer if isinstance(layer, nn.Linear) else BatchOrInstanceNorm
    trained = not frozen(layer) and not frozen(following)
    return isinstance(following, kind) and known(following) and trained
