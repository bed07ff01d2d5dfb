"""The anatomy of a network: which layers it has and how they run, as one description for all tricks.

It comes from a batch that was passed through the network (`watch.py`). So neither the order in which
layers were assigned nor the names of their classes matter.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

from pydantic import TypeAdapter, ValidationError
from torch import nn

from lightning_tricks.errors import InputError, one_line

_HELD = "_anatomy"
"""Attribute under which a network keeps its anatomy."""


class Fans(NamedTuple):
    """How many inputs one output of a layer sums over, and how many outputs one input reaches."""

    inputs: int
    outputs: int


@dataclass(frozen=True)
class Weight:
    """A parameter that inputs are multiplied with."""

    name: str
    """As in `named_parameters`."""
    fans: Fans
    unit: int = 0
    """Dimension of its output units."""
    parts: int = 1
    """Number of equal matrices that are stacked along that dimension, such as the gates of an LSTM."""


@dataclass(frozen=True)
class Layer:
    """A module that multiplies its inputs with weights."""

    path: str
    weights: tuple[Weight, ...]
    biases: tuple[str, ...] = ()
    """Names of its biases."""
    width: int = 0
    """Number of features or channels of its outputs."""
    dims: int | None = None
    """Number of dimensions after the channels; None where features are the last dimension."""
    called: bool = False
    """Whether a module may be put before or after it: it is called, with a tensor, and returns one."""
    ran: bool = True
    output: bool = False
    """Whether no other layer stands between it and the result or the loss."""
    tied: bool = False
    """Whether its weight is used elsewhere, too."""
    trained: bool = True
    kept: str = ""
    """Why its weights are to stay as they were drawn; empty if they need not."""
    activation: str = ""
    """Path of the activation that takes its outputs, if that is called once."""


@dataclass(frozen=True)
class Norm:
    """A module that normalizes, and does nothing more."""

    path: str
    width: int
    last: bool
    """Whether features are the last dimension, or the first after the batch."""
    dims: int | None
    """Number of dimensions beside batch and channels; None if that cannot be told."""


@dataclass(frozen=True)
class Draw:
    """A place where a module drops numbers by a function, and not by a layer."""

    path: str
    attribute: str
    """Attribute of the module that holds the rate; empty if there is none."""
    rate: float


class Axes(NamedTuple):
    """Where the features of a network's inputs are."""

    inputs: int = 0
    """Number of dimensions of the inputs that were seen; 0 if they were not one tensor."""
    features: int | None = None
    """Axis of the features or channels of such inputs; None if that cannot be told."""

    def axis(self, dims: int) -> int | None:
        """Return the axis of the features of inputs; None if that cannot be told.

        Args:
            dims: number of dimensions of the inputs.
        """
        return self.features if dims == self.inputs else {3: None}.get(dims, 1)


@dataclass(frozen=True)
class Anatomy:
    """How a network is built and how it runs."""

    layers: tuple[Layer, ...] = ()
    """Weighted layers, in the order in which they run."""
    norms: tuple[Norm, ...] = ()
    """Modules that others may take the place of, in that order."""
    mixed: tuple[str, ...] = ()
    """Classes of norms that may do more than norm."""
    runs: tuple[str, ...] = ()
    """Paths of all modules that ran, in the order in which they began."""
    tables: tuple[str, ...] = ()
    """Names of the parameters that are looked up, as those of embeddings."""
    draws: tuple[Draw, ...] = ()
    idle: tuple[str, ...] = ()
    """Names of the parameters that the module's own optimizer does not train, though they could be."""
    copies: tuple[tuple[str, str], ...] = ()
    """Paths of modules without gradients, each with that of the module that it is a copy of."""
    attends: bool = False
    """Whether there is attention in it."""
    outputs: int = 0
    """Number of outputs for a sample, such as classes."""
    axes: Axes = field(default_factory=Axes)
    """Where the features of the inputs are."""
    watched: bool = False
    """Whether a batch was passed through; else all of this is by the order of assignment."""
    why: str = field(default="", compare=False)
    """Why it could not be watched."""

    @cached_property
    def hidden(self) -> tuple[Layer, ...]:
        """The layers except the outputs."""
        return tuple(layer for layer in self.layers if not layer.output)

    def without_idle(self, names: Collection[str]) -> Self:
        """Return the anatomy of the network where some of its parameters are not trained.

        Args:
            names: of parameters that could be.
        """

        def of(layer: Layer) -> Layer:
            idle = all(weight.name in names for weight in layer.weights)
            return replace(layer, trained=layer.trained and not idle)

        return replace(self, idle=tuple(names), layers=tuple(map(of, self.layers)))

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        data: dict[str, Any] = TypeAdapter(type(self)).dump_python(self, mode="json")
        return data

    @classmethod
    def read(cls, data: Any) -> Self:
        """Read what `plain` returned.

        Raises:
            InputError: if the data are not that.
        """
        try:
            found: Self = TypeAdapter(cls).validate_python(data)
        except ValidationError as error:
            raise InputError(f"an anatomy cannot be read: {one_line(error)}") from None
        return found


def describe(network: nn.Module, anatomy: Anatomy) -> None:
    """Let a network keep its anatomy, which copies of it keep too."""
    object.__setattr__(network, _HELD, anatomy)


def held_anatomy(network: nn.Module) -> Anatomy | None:
    """Return the anatomy that a network keeps; None if it has none."""
    return vars(network).get(_HELD)


def forget(network: nn.Module) -> None:
    """Take its anatomy from a network."""
    vars(network).pop(_HELD, None)


def modules_of(network: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of a network by path, those with several paths by each of them."""
    return dict(network.named_modules(remove_duplicate=False))


def parameters_of(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a network by name, those with several names by each of them."""
    return dict(network.named_parameters(remove_duplicate=False))


def layers_in(network: nn.Module, anatomy: Anatomy) -> Iterator[tuple[Layer, nn.Module]]:
    """Walk the layers that are trained, in the order in which they run, with their modules."""
    modules = modules_of(network)
    for layer in anatomy.layers:
        if layer.trained and layer.path in modules:
            yield layer, modules[layer.path]
