"""Normalization: batch, layer, group or weight norm on the hidden layers.

A backbone that has norms gets others in their places, whatever module they stand in. One that has
none gets a norm beside every hidden layer: before the activation (as Ioffe and Szegedy, 2015) or,
where `nn.Sequential` shows the activation, after it. A norm of a class that may do more, such as an
activation, is left alone, unless `surgery.declare_norm` says what it does.
"""

import itertools
import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from lightning_tricks import surgery
from lightning_tricks.errors import InputError
from lightning_tricks.space import Choice, Int, Trick
from lightning_tricks.surgery import Weighted

Position = Literal["before", "after"]

_MAY_DO_MORE = "which may do more than norm, such as an activation"
_DECLARE = "say with surgery.declare_norm that it is a norm, and then its child modules in turn"


class Place(NamedTuple):
    """What a norm layer is to normalize."""

    width: int
    """The number of features or channels."""
    last: bool
    """Whether they are the last dimension, as after a linear layer, or the first after the batch."""
    dims: int | None
    """The number of dimensions beside batch and channels; None if that cannot be told."""


class NormalizationTrick(Trick):
    """Which normalization the hidden layers have."""

    @abstractmethod
    def apply(self, module: nn.Module) -> None:
        """Change the norms of a module in place, before its weights are drawn.

        Raises:
            InputError: if there is no hidden layer to normalize.
        """

    def wrap(self, module: nn.Module) -> None:
        """Do in place what must wait until the weights are drawn."""
        del module


class NoNormalization(NormalizationTrick):
    """No norm layer; those that the backbone has are taken out, and biases come back."""

    neutral: ClassVar[bool] = True
    kind: Literal["none"] = "none"

    def apply(self, module: nn.Module) -> None:
        _warn_of_unknown(self.kind, module)
        remove_norms(module)


class OwnNormalization(NormalizationTrick):
    """The norms that the backbone has, as they are."""

    searched: ClassVar[bool] = False
    kind: Literal["own"] = "own"

    def apply(self, module: nn.Module) -> None:
        del module


class _LayerwiseNorm(NormalizationTrick):
    """A norm layer in the place of each that the backbone has, or beside every hidden layer."""

    kind: str
    position: Annotated[Position, Choice("before", "after")] = "before"

    def apply(self, module: nn.Module) -> None:
        unknown = _unknown(module)
        if swap_norms(module, self.layer):
            _warn_of_unknown(self.kind, module)
        elif unknown:
            raise InputError(
                f"normalization {self.kind!r} found nothing to act on: all norms are of {unknown}, "
                f"{_MAY_DO_MORE}; set normalization to 'own', or {_DECLARE}"
            )
        elif not insert_norms(module, self.layer):
            raise InputError(
                f"normalization {self.kind!r} found nothing to act on: looked for norm layers, and "
                "for nn.Linear and convolutions other than the last"
            )
        moved = move_norms(module, self.position)
        if self.position == "after" and not moved:
            warnings.warn(
                f"normalization {self.kind!r} stays before the activations: looked in nn.Sequential "
                "for a norm that an activation follows",
                stacklevel=2,
            )

    @abstractmethod
    def layer(self, place: Place) -> nn.Module:
        """Return a new norm layer for a place."""


class BatchNorm(_LayerwiseNorm):
    """x ← γ·(x − mean)/std + β over the mini-batch (Ioffe and Szegedy, 2015).

    Needs batches of two or more.
    """

    kind: Literal["batch"] = "batch"

    def layer(self, place: Place) -> nn.Module:
        if place.last:
            return LastBatchNorm(place.width)
        kinds = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d, None: AnyBatchNorm}
        return kinds[place.dims](place.width)


class LayerNorm(_LayerwiseNorm):
    """x ← γ·(x − mean)/std + β over the features of each sample (Ba et al., 2016).

    On convolutions the mean and std are over channels and pixels, with γ and β per channel.
    """

    kind: Literal["layer"] = "layer"

    def layer(self, place: Place) -> nn.Module:
        return nn.LayerNorm(place.width) if place.last else nn.GroupNorm(1, place.width)


class GroupNorm(_LayerwiseNorm):
    """Layer norm within each group of channels (Wu and He, 2018).

    Where `groups` does not divide the channels, the largest number below it that does is taken; on
    linear layers a group has at least two features, for alone each would become zero.
    """

    kind: Literal["group"] = "group"
    groups: Annotated[int, Int(2, 32, log=True)] = Field(8, ge=1, le=2**16)

    def layer(self, place: Place) -> nn.Module:
        width = place.width
        flat = place.last or place.dims == 1  # nn.BatchNorm1d may have stood on either
        most = min(self.groups, max(width // 2, 1)) if flat else self.groups
        kind = LastGroupNorm if place.last else nn.GroupNorm
        return kind(max(g for g in range(1, most + 1) if width % g == 0), width)


class WeightNorm(NormalizationTrick):
    """w = g·v/‖v‖ for each output unit of every layer (Salimans and Kingma, 2016)."""

    kind: Literal["weight"] = "weight"

    def apply(self, module: nn.Module) -> None:
        _warn_of_unknown(self.kind, module)
        remove_norms(module)

    def wrap(self, module: nn.Module) -> None:
        layers = surgery.weighted_layers(module)
        weights = [id(layer.weight) for layer in layers]
        if len(set(weights)) < len(weights):
            raise InputError("normalization 'weight' would untie layers that share one weight")
        for layer in layers:
            if not torch.linalg.vector_norm(layer.weight, dim=surgery.unit_dims(layer)).all():
                continue  # a unit of zeros has no direction
            dim = 1 if isinstance(layer, surgery._TRANSPOSED) else 0
            parametrizations.weight_norm(layer, dim=dim)


@surgery.declare_norm
class AnyBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm of the second dimension, however many follow."""

    def _check_input_dim(self, input: Tensor) -> None:
        del input


@surgery.declare_norm
class LastBatchNorm(AnyBatchNorm):
    """Batch norm of the last dimension, however many there are before."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(-1, 1)).movedim(1, -1)


@surgery.declare_norm
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
    if isinstance(norm, nn.modules.batchnorm._NormBase):
        dims = next((d for d in (1, 2, 3) if f"{d}d" in type(norm).__name__), None)
        return Place(norm.num_features, last=False, dims=dims)
    if isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        # Torchvision's and timm's `LayerNorm2d` work on the channels of images.
        dims = 2 if "2d" in type(norm).__name__ else len(norm.normalized_shape) - 1
        return Place(norm.normalized_shape[0], last=not dims, dims=dims or None)
    return None


def remove_norms(module: nn.Module) -> int:
    """Take out every known norm layer, and return how many; layers without a bias get one."""
    norms = surgery.norm_layers(module)
    gone = {id(norm) for norm in norms if not surgery.after_norm(norm)}
    for container in surgery.sequentials(module):
        kept = [child for child in container if id(child) not in gone]
        if len(kept) < len(container):
            surgery.refill(container, kept)
    for norm in norms:
        _replace(module, norm, nn.Identity())
    for layer in surgery.weighted_layers(module) if norms else ():
        surgery.add_bias(layer)
    return len(norms)


def swap_norms(module: nn.Module, make: Callable[[Place], nn.Module]) -> int:
    """Put new norms in the places of the known ones that a module has; return how many."""
    swapped = 0
    for norm in surgery.norm_layers(module):
        place = standing(norm)
        _replace(module, norm, nn.Identity() if place is None else make(place))
        swapped += place is not None
    return swapped


def _replace(module: nn.Module, norm: nn.Module, new: nn.Module) -> None:
    """Put something in the place of a norm; what the norm does with its result stays."""
    after = surgery.after_norm(norm)
    surgery.replace_everywhere(module, norm, nn.Sequential(new, *after) if after else new)


def _unknown(module: nn.Module) -> str:
    """Name the classes of the norms that are left alone."""
    kinds = {type(norm) for norm in surgery.unknown_norms(module)}
    return ", ".join(sorted(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds))


def _warn_of_unknown(kind: str, module: nn.Module) -> None:
    if unknown := _unknown(module):
        warnings.warn(
            f"normalization {kind!r} leaves the norms of {unknown} alone, {_MAY_DO_MORE}; to have "
            f"them changed, {_DECLARE}",
            stacklevel=4,
        )


def insert_norms(module: nn.Module, make: Callable[[Place], nn.Module]) -> int:
    """Put a norm behind every hidden layer, and return how many.

    Outside of `nn.Sequential` the layer becomes one, of itself and the norm. The projections of
    `nn.MultiheadAttention` are left alone: it reads their weights.
    """
    hidden = surgery.called_layers(module)[:-1]
    for layer in hidden:
        surgery.put_beside(module, layer, after=make(beside(layer)))
    return len(hidden)


def move_norms(module: nn.Module, position: Position) -> int:
    """Put the norms of hidden layers before or after the activation that follows at once.

    A layer loses its bias where a norm that takes it off again comes next, and gets one where the norm
    is moved away. Returns how many norms have an activation beside them in an `nn.Sequential`.
    """
    count = 0
    for container in surgery.sequentials(module):
        children = list(container)
        for index in range(len(children) - 2):
            layer, *pair = children[index : index + 3]
            if not isinstance(layer, Weighted):
                continue
            norms = [surgery.known(child) for child in pair]
            acts = [isinstance(child, surgery.ACTIVATIONS) for child in pair]
            if norms == [True, False] == acts[::-1] or acts == [True, False] == norms[::-1]:
                count += 1
                if norms[0] != (position == "before"):
                    children[index + 1 : index + 3] = pair[::-1]
                    surgery.add_bias(layer)
        for layer, following in itertools.pairwise(children):
            if isinstance(layer, Weighted) and _cancels_bias(layer, following):
                surgery.drop_bias(layer)
        surgery.refill(container, children)
    return count


def _cancels_bias(layer: Weighted, following: nn.Module) -> bool:
    """Tell whether what follows subtracts the mean of each channel, and a bias with it.

    Layer and group norm take the mean over channels with different biases. Instance norm behind a
    linear layer takes it over its features.
    """
    kinds = nn.modules.batchnorm
    kind = kinds._BatchNorm if isinstance(layer, nn.Linear) else kinds._NormBase
    trained = not surgery.frozen(layer) and not surgery.frozen(following)
    return isinstance(following, kind) and surgery.known(following) and trained


Normalization = NoNormalization | OwnNormalization | BatchNorm | LayerNorm | GroupNorm | WeightNorm
