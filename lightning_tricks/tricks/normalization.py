"""Normalization: batch, layer, group or weight norm on every hidden layer.

The surgery removes the norms that the backbone has, and puts its own into the `nn.Sequential`
containers: before the activation (as Ioffe and Szegedy, 2015) or after it.
"""

import itertools
from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import nn
from torch.nn.utils import parametrizations

from lightning_tricks import surgery
from lightning_tricks.errors import InputError
from lightning_tricks.space import Choice, Int, Trick
from lightning_tricks.surgery import Weighted

Position = Literal["before", "after"]


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
        remove_norms(module)


class _LayerwiseNorm(NormalizationTrick):
    """A norm layer beside every hidden layer."""

    kind: str
    position: Annotated[Position, Choice("before", "after")] = "before"

    def apply(self, module: nn.Module) -> None:
        remove_norms(module)
        if not insert_norms(module, self.layer, self.position):
            raise InputError(
                f"normalization {self.kind!r} found nothing to act on: looked in "
                "nn.Sequential for nn.Linear and convolutions other than the last"
            )

    @abstractmethod
    def layer(self, beside: Weighted) -> nn.Module:
        """Return a new norm layer for the outputs of a weighted layer."""


class BatchNorm(_LayerwiseNorm):
    """x ← γ·(x − mean)/std + β over the mini-batch (Ioffe and Szegedy, 2015).

    Needs batches of two or more.
    """

    kind: Literal["batch"] = "batch"

    def layer(self, beside: Weighted) -> nn.Module:
        kinds = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        return kinds[spatial_dims(beside)](surgery.channels(beside))


class LayerNorm(_LayerwiseNorm):
    """x ← γ·(x − mean)/std + β over the features of each sample (Ba et al., 2016).

    On convolutions the mean and std are over channels and pixels, with γ and β per channel.
    """

    kind: Literal["layer"] = "layer"

    def layer(self, beside: Weighted) -> nn.Module:
        width = surgery.channels(beside)
        return nn.GroupNorm(1, width) if spatial_dims(beside) else nn.LayerNorm(width)


class GroupNorm(_LayerwiseNorm):
    """Layer norm within each group of channels (Wu and He, 2018).

    Where `groups` does not divide the channels, the largest number below it that does is taken; on
    linear layers a group has at least two features, for alone each would become zero.
    """

    kind: Literal["group"] = "group"
    groups: Annotated[int, Int(2, 32, log=True)] = Field(8, ge=1)

    def layer(self, beside: Weighted) -> nn.Module:
        width = surgery.channels(beside)
        most = self.groups if spatial_dims(beside) else min(self.groups, max(width // 2, 1))
        return nn.GroupNorm(max(g for g in range(1, most + 1) if width % g == 0), width)


class WeightNorm(NormalizationTrick):
    """w = g·v/‖v‖ for each output unit of every layer (Salimans and Kingma, 2016)."""

    kind: Literal["weight"] = "weight"

    def apply(self, module: nn.Module) -> None:
        remove_norms(module)

    def wrap(self, module: nn.Module) -> None:
        for layer in surgery.weighted_layers(module):
            dim = 1 if isinstance(layer, surgery._TRANSPOSED) else 0
            parametrizations.weight_norm(layer, dim=dim)


def spatial_dims(layer: Weighted) -> int:
    """Return 0 for a linear layer, and 1, 2 or 3 for a convolution."""
    return 0 if isinstance(layer, nn.Linear) else len(layer.kernel_size)


def remove_norms(module: nn.Module) -> None:
    """Take out every norm layer; a bias that a norm made useless comes back."""
    for container in surgery.sequentials(module):
        children = list(container)
        for layer, following in itertools.pairwise(children):
            if isinstance(layer, Weighted) and isinstance(following, surgery.NORMS):
                surgery.add_bias(layer)
        kept = [child for child in children if not isinstance(child, surgery.NORMS)]
        if len(kept) < len(children):
            surgery.refill(container, kept)
    for norm in [found for found in module.modules() if isinstance(found, surgery.NORMS)]:
        surgery.replace_everywhere(module, norm, nn.Identity())


def insert_norms(module: nn.Module, make: Callable[[Weighted], nn.Module], position: Position) -> int:
    """Put a norm beside every hidden layer that stands in an `nn.Sequential`; return how many.

    After the layer, or after its activation where one follows at once. A layer loses its bias when
    the norm comes next.
    """
    hidden = {id(layer) for layer in surgery.hidden_layers(module)}
    inserted = 0
    for container in surgery.sequentials(module):
        new: list[nn.Module] = []
        waiting: Weighted | None = None  # its activation comes next, and then its norm
        children = list(container)
        for child, following in zip(children, [*children[1:], None], strict=True):
            new.append(child)
            if waiting is not None:
                new.append(make(waiting))
                waiting = None
            elif isinstance(child, Weighted) and id(child) in hidden:
                inserted += 1
                if position == "after" and isinstance(following, surgery.ACTIVATIONS):
                    waiting = child
                else:
                    surgery.drop_bias(child)
                    new.append(make(child))
        surgery.refill(container, new)
    return inserted


Normalization = NoNormalization | BatchNorm | LayerNorm | GroupNorm | WeightNorm
