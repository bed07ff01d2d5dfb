"""Normalization: batch, layer, group or weight norm on the hidden layers.

If the backbone has norms, the new ones replace them, in whatever module they are. If it has none, each
hidden layer gets a norm after it: before the activation (as Ioffe and Szegedy, 2015) or, if the
activation is a module, optionally after that. A norm that does more, such as an activation, stays
unchanged unless you declare it with `declare_norm`.
"""

import warnings
from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import nn

from lightning_tricks.errors import InputError
from lightning_tricks.space.domains import Choice, Int
from lightning_tricks.space.trick import Trick
from lightning_tricks.surgery.norm_places import (
    Place,
    Position,
    insert_norms,
    move_norms,
    remove_norms,
    stays_before,
    swap_norms,
)
from lightning_tricks.surgery.norms import FreeBatchNorm, LastBatchNorm, LastGroupNorm, StepGroupNorm
from lightning_tricks.surgery.watch import anatomy_of
from lightning_tricks.surgery.weight_norm import normalize_weights

_MORE = "which do more than normalize, such as an activation"
_DECLARE = "declare each with declare_norm if it is a norm, then its child modules in turn"


class NormalizationTrick(Trick):
    """The normalization of the hidden layers."""

    changes_layers: ClassVar[bool] = True
    structural: ClassVar[Literal["", "kind", "fields"]] = "fields"

    @abstractmethod
    def apply(self, module: nn.Module) -> None:
        """Change the norms of a module in place, before its weights are drawn.

        Raises:
            InputError: if there is no hidden layer to normalize.
        """

    def wrap(self, module: nn.Module) -> None:
        """Do the changes in place that must wait until the weights are drawn."""
        del module


class NoNormalization(NormalizationTrick):
    """No norm layers. Those of the backbone are removed, and layers without a bias get one."""

    neutral: ClassVar[bool] = True
    kind: Literal["none"] = "none"

    def apply(self, module: nn.Module) -> None:
        _warn_of_mixed(self.kind, module)
        remove_norms(module)


class OwnNormalization(NormalizationTrick):
    """The backbone's own norms, unchanged.

    When it helps: if the network is pretrained, or its norms were chosen with care.
    """

    searched: ClassVar[bool] = False
    kind: Literal["own"] = "own"

    def apply(self, module: nn.Module) -> None:
        del module


class _LayerwiseNorm(NormalizationTrick):
    """A norm layer in place of each norm of the backbone, or after every hidden layer."""

    kind: str
    position: Annotated[Position, Choice("before", "after")] = "before"

    def apply(self, module: nn.Module) -> None:
        mixed = ", ".join(anatomy_of(module).mixed)
        if swap_norms(module, self.layer):
            _warn_of_mixed(self.kind, module)
        elif mixed:
            raise InputError(
                f"normalization {self.kind!r} found nothing to act on: all norms are of {mixed}, "
                f"{_MORE}; set normalization to 'own', or {_DECLARE}"
            )
        elif not insert_norms(module, self.layer, self.position):
            raise InputError(
                f"normalization {self.kind!r} found nothing to act on: looked for norm layers, and "
                "for linear and convolutional layers other than the outputs; to keep the network "
                "unchanged, set normalization to 'own'"
            )
        move_norms(module, self.position)
        if self.position == "after" and stays_before(module):
            warnings.warn(
                f"normalization {self.kind!r} stays before the activations: looked for activation "
                "modules that are called once, after a layer",
                stacklevel=2,
            )

    @abstractmethod
    def layer(self, place: Place) -> nn.Module | None:
        """Return a new norm layer for this place; None if the place should stay as it is."""


class BatchNorm(_LayerwiseNorm):
    """x ← γ·(x − mean)/std + β over the mini-batch (Ioffe and Szegedy, 2015).

    It needs batches of two or more samples.

    When it helps: in convolutional networks and MLPs, with batches of 16 samples or more. It allows
    larger learning rates and forgives a poor initialization. Small batches have noisy statistics; use
    `group` there.
    """

    kind: Literal["batch"] = "batch"

    def layer(self, place: Place) -> nn.Module:
        if place.last:
            return LastBatchNorm(place.width)
        kinds = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d, None: FreeBatchNorm}
        return kinds[place.dims](place.width)


class LayerNorm(_LayerwiseNorm):
    """x ← γ·(x − mean)/std + β over the features of each sample (Ba et al., 2016).

    On images the mean and std are over channels and pixels, with γ and β per channel. On sequences, and
    in a causal network such as a PixelCNN, they are over the channels of each position, so that none
    sees later ones. A layer with a single output per sample gets none, because the output would become
    zero.

    When it helps: in transformers and recurrent networks, and with small batches: it works the same way
    in training and in use. In convolutional networks `batch` or `group` is the usual choice.
    """

    kind: Literal["layer"] = "layer"

    def layer(self, place: Place) -> nn.Module | None:
        if place.single:
            return None
        if place.last:
            return nn.LayerNorm(place.width)
        return (StepGroupNorm if place.apart else nn.GroupNorm)(1, place.width)


class GroupNorm(_LayerwiseNorm):
    """Layer norm within each group of channels (Wu and He, 2018).

    If `groups` does not divide the number of channels, the largest smaller divisor is used. A group has
    at least two numbers of a sample, because a single one would become zero: on linear layers, and on
    maps of one pixel, at least two features. A layer with a single output per sample gets no norm. On
    sequences, and in a causal network such as a PixelCNN, each position is normalized alone, so that
    none sees later ones.

    When it helps: in convolutional networks with small batches, as with large images.
    """

    kind: Literal["group"] = "group"
    groups: Annotated[int, Int(2, 32, log=True)] = Field(default=8, ge=1, le=2**16)

    def layer(self, place: Place) -> nn.Module | None:
        if place.single:
            return None
        width = place.width
        most = min(self.groups, max(width // 2, 1)) if place.alone else self.groups
        kind = LastGroupNorm if place.last else StepGroupNorm if place.apart else nn.GroupNorm
        return kind(max(g for g in range(1, most + 1) if width % g == 0), width)


class WeightNorm(NormalizationTrick):
    """w = g·v/‖v‖ for each output unit of every layer (Salimans and Kingma, 2016).

    When it helps: where the samples of a batch must not influence each other. It costs little, but does
    not keep the scale of the signal: a poor initialization stays poor.
    """

    kind: Literal["weight"] = "weight"

    def apply(self, module: nn.Module) -> None:
        _warn_of_mixed(self.kind, module)
        remove_norms(module)

    def wrap(self, module: nn.Module) -> None:
        if not normalize_weights(module):
            raise InputError(
                "normalization 'weight' found nothing to act on: looked for layers with one weight that "
                "is neither shared nor parametrized; to keep the norms of the network, set "
                "normalization to 'own'"
            )


def _warn_of_mixed(kind: str, module: nn.Module) -> None:
    if mixed := ", ".join(anatomy_of(module).mixed):
        warnings.warn(
            f"normalization {kind!r} leaves the norms of {mixed} alone, {_MORE}; to have them changed, "
            f"{_DECLARE}",
            stacklevel=4,
        )


Normalization = NoNormalization | OwnNormalization | BatchNorm | LayerNorm | GroupNorm | WeightNorm
