"""Insert norms into a network, swap them, move them and remove them."""

import itertools
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, TypeAlias

from torch import nn

from lightning_tricks.surgery.anatomy import Layer, Norm, layers_in, modules_of
from lightning_tricks.surgery.attach import NORM, attach, attached, detach
from lightning_tricks.surgery.layers import ACTIVATIONS, Weighted, add_bias, drop_bias, frozen
from lightning_tricks.surgery.norms import after_norm, known
from lightning_tricks.surgery.replace import replace_everywhere
from lightning_tricks.surgery.torch_internals import BatchNormLayer, BatchOrInstanceNorm, submodules
from lightning_tricks.surgery.watch import anatomy_of

Position = Literal["before", "after"]


class Place(NamedTuple):
    """What a norm layer should normalize."""

    width: int
    """Number of features or channels."""
    last: bool
    """Whether they are the last dimension, as after a linear layer, or the first after the batch."""
    dims: int | None
    """Number of dimensions in addition to batch and channels; None if unknown."""
    apart: bool = False
    """Whether the positions of a sample must be normalized apart, so that none sees later ones."""
    alone: bool = False
    """Whether a position is normalized alone, because they are apart, or there is one only."""

    @classmethod
    def of(cls, one: Layer | Norm) -> "Place":
        """Return the place behind a layer, or the place of a norm."""
        last = one.last if isinstance(one, Norm) else one.dims is None
        return cls(one.width, last, one.dims, one.apart, last or one.apart or one.positions == 1)

    @property
    def single(self) -> bool:
        """Whether a sample has one number here, which becomes zero if its own mean is subtracted."""
        return self.width == 1 and self.alone


Make: TypeAlias = Callable[[Place], nn.Module | None]
"""Returns a new norm for a place; None if the place should stay as it is."""


def remove_norms(network: nn.Module) -> int:
    """Remove every norm, and return how many. Torch's own layers without a bias get one."""
    removed = _replace_norms(network, lambda place: nn.Identity())
    for layer, _ in list(attached(network, NORM)):
        detach(layer, NORM)
        removed += 1
    for _, module in layers_in(network, anatomy_of(network)) if removed else ():
        add_bias(module)
    return removed


def swap_norms(network: nn.Module, make: Make) -> int:
    """Replace a network's norms by new ones, and return how many."""
    swapped = _replace_norms(network, make)
    modules = modules_of(network)
    for layer in anatomy_of(network).layers:
        for path in filter(None, (layer.path, layer.activation)):
            if NORM in submodules(modules[path]) and (norm := make(Place.of(layer))) is not None:
                attach(modules[path], NORM, _like(norm, modules[path], network))
                swapped += 1
    return swapped


def _replace_norms(network: nn.Module, make: Make) -> int:
    """Replace each norm by a module for its place. Modules that the norm runs after itself stay."""
    modules, replaced = modules_of(network), 0
    for norm in anatomy_of(network).norms:
        if norm.path not in modules or isinstance(modules[norm.path], nn.Identity):
            continue
        old = modules[norm.path]
        after = after_norm(old)
        new = make(Place.of(norm)) if norm.width else nn.Identity()
        if new is None:
            continue
        new = _like(new, old, network)
        replace_everywhere(network, old, nn.Sequential(new, *after) if after else new)
        replaced += 1
    return replaced


def insert_norms(network: nn.Module, make: Make, position: Position) -> int:
    """Put a norm behind every hidden layer, or behind its activation, and return how many.

    A layer loses its bias if the norm cancels it.
    """
    modules = modules_of(network)
    layers = layers_in(network, anatomy_of(network))
    found = [(layer, module) for layer, module in layers if layer.called and layer.ran]
    hidden = [(layer, module, make(Place.of(layer))) for layer, module in found if not layer.output]
    normed = [(layer, module, norm) for layer, module, norm in hidden if norm is not None]
    for layer, module, made in normed:
        norm = _like(made, module, network)
        if position == "after" and layer.activation:
            attach(modules[layer.activation], NORM, norm)
        else:
            attach(module, NORM, norm)
            _drop_cancelled(module, norm)
    return len(normed)


def _like(norm: nn.Module, place: nn.Module, network: nn.Module) -> nn.Module:
    """Give a norm the number type and the device of the place where it goes, else of the network."""
    weights = (p for module in (place, network) for p in module.parameters() if p.is_floating_point())
    first = next(weights, None)
    return norm if first is None else norm.to(first.device, first.dtype)


def stays_before(network: nn.Module) -> bool:
    """Tell whether no norm of a network follows an activation."""
    if any(isinstance(layer, ACTIVATIONS) for layer, _ in attached(network, NORM)):
        return False
    pairs = (pair for container in _sequentials(network) for pair in itertools.pairwise(container))
    return not any(isinstance(one, ACTIVATIONS) and known(other) for one, other in pairs)


def move_norms(network: nn.Module, position: Position) -> None:
    """Put the norms of hidden layers before or after the adjacent activation in an `nn.Sequential`.

    A layer loses its bias if the norm that cancels it comes next, and gets one if that norm moves away.
    """
    for container in _sequentials(network):
        names = list(submodules(container))
        for layer, first, second in zip(names, names[1:], names[2:], strict=False):
            module = container.get_submodule(layer)
            pair = [container.get_submodule(first), container.get_submodule(second)]
            norms = [known(child) for child in pair]
            acts = [isinstance(child, ACTIVATIONS) for child in pair]
            beside = norms == acts[::-1] and sorted(norms) == [False, True]
            if isinstance(module, Weighted) and beside and norms[0] != (position == "before"):
                setattr(container, first, pair[1])
                setattr(container, second, pair[0])
                add_bias(module)
        for module, following in itertools.pairwise(container):
            _drop_cancelled(module, following)


def _sequentials(network: nn.Module) -> Iterator[nn.Sequential]:
    """Walk the containers whose children run one after another."""
    for found in list(network.modules()):
        if isinstance(found, nn.Sequential) and type(found).forward is nn.Sequential.forward:
            yield found


def _drop_cancelled(layer: nn.Module, following: nn.Module) -> None:
    """Remove the bias of one of torch's layers if the next norm subtracts it with each channel's mean.

    Layer and group norm do not: they take the mean over channels, which have different biases. Neither
    does instance norm behind a linear layer: it takes the mean over the features.
    """
    if not isinstance(layer, Weighted) or type(layer).forward not in _OWN:
        return
    kind = BatchNormLayer if isinstance(layer, nn.Linear) else BatchOrInstanceNorm
    if isinstance(following, kind) and known(following) and not frozen(layer) and not frozen(following):
        drop_bias(layer)


_OWN = {
    kind.forward
    for kind in (
        nn.Linear,
        nn.Conv1d,
        nn.Conv2d,
        nn.Conv3d,
        nn.ConvTranspose1d,
        nn.ConvTranspose2d,
        nn.ConvTranspose3d,
    )
}
"""Forward functions that work without a bias."""
