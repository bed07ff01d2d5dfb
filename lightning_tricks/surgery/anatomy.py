"""The anatomy of a network: its layers and how they run, as one description for all tricks.

It comes from passing a batch through the network (`watch.py`). So the order in which layers were
assigned does not matter, nor do the names of their classes.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

from pydantic import TypeAdapter, ValidationError
from torch import nn

from lightning_tricks.errors import InputError, one_line

_HELD = "_anatomy"
"""Attribute of a network that holds its anatomy."""


class Fans(NamedTuple):
    """The number of inputs that one output sums over, and of outputs that one input reaches."""

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
    """Number of equal matrices stacked along that dimension, such as the gates of an LSTM."""
    blocks: int = 1
    """Number of matrices one after another in it: groups of a convolution, or leading dimensions."""


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
    """Number of dimensions after the channels; None if features are the last dimension."""
    positions: int = 0
    """Number of positions of a channel in a sample's outputs, such as pixels; 0 if unknown."""
    apart: bool = False
    """Whether its positions must be normalized apart: steps of a sequence, or positions of maps that
    must not see later ones."""
    called: bool = False
    """Whether a module may be put before or after it: it is called, takes a tensor and returns one."""
    ran: bool = True
    output: bool = False
    """Whether no other layer stands between it and the result or the loss."""
    tied: bool = False
    """Whether its weight is used elsewhere too."""
    trained: bool = True
    kept: str = ""
    """Why its weights must not be drawn again; empty if they may."""
    activation: str = ""
    """Path of the activation that takes its outputs, if it is called once."""


@dataclass(frozen=True)
class Norm:
    """A module that normalizes and does nothing else."""

    path: str
    width: int
    last: bool
    """Whether features are the last dimension, or the first after the batch."""
    dims: int | None
    """Number of dimensions in addition to batch and channels; None if unknown."""
    positions: int = 0
    """Number of positions of a channel in a sample, such as pixels; 0 if unknown."""
    apart: bool = False
    """Whether its positions must be normalized apart, as in `Layer`."""


@dataclass(frozen=True)
class Draw:
    """A place where a module calls a dropout function instead of a layer."""

    path: str
    attribute: str
    """Attribute of the module that holds the rate; empty if there is none."""
    rate: float


class Axes(NamedTuple):
    """The position of the features in a network's inputs."""

    inputs: int = 0
    """Number of dimensions of the watched inputs; 0 if they were not one tensor."""
    features: int | None = None
    """Axis of the features or channels of such inputs; None if unknown."""

    def axis(self, dims: int) -> int | None:
        """Return the axis of the features of inputs; None if unknown.

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
    """Norms that may be replaced, in the same order."""
    mixed: tuple[str, ...] = ()
    """Classes of norms that may do more than normalize."""
    runs: tuple[str, ...] = ()
    """Paths of all modules that ran, in the order in which they began."""
    tables: tuple[str, ...] = ()
    """Names of lookup tables, such as the weights of embeddings."""
    draws: tuple[Draw, ...] = ()
    idle: tuple[str, ...] = ()
    """Names of the trainable parameters that the module's own optimizer does not train."""
    later: tuple[str, ...] = ()
    """Names of the frozen parameters that the module's own optimizer holds, to be trained later."""
    compiled: tuple[str, ...] = ()
    """Paths of the parts that `torch.jit` compiled, in which no layer can be changed."""
    copies: tuple[tuple[str, str], ...] = ()
    """Pairs of paths: a module without gradients, and the module that it is a copy of."""
    attends: bool = False
    """Whether the network has attention."""
    outputs: int = 0
    """Number of outputs per sample, such as classes."""
    axes: Axes = field(default_factory=Axes)
    """The position of the features in the inputs."""
    samples: int = 0
    """Axis of the samples in the hidden layers' outputs; 1 if the steps of a sequence come first."""
    watched: bool = False
    """Whether a batch was passed through. If not, the order of assignment is used."""
    why: str = field(default="", compare=False)
    """Why it could not be watched."""

    @cached_property
    def hidden(self) -> tuple[Layer, ...]:
        """The layers except the outputs."""
        return tuple(layer for layer in self.layers if not layer.output)

    def notes(self) -> Iterator[str]:
        """Yield what a user should know, line by line."""
        if not self.watched:
            yield (
                "the network could not be watched while it runs: its layers are assumed to run in the "
                f"order in which they were assigned ({self.why})"
            )
        if self.compiled:
            yield (
                f"no trick changes the layers in {', '.join(self.compiled)}, which torch.jit compiled: "
                "give the network as it was before"
            )
        if self.idle:
            yield (
                f"no trial trains {len(self.idle)} parameters that the module's own optimizer leaves "
                f"out, such as {self.idle[0]}; to train all, set transfer to 'all'"
            )

    def without_idle(self, names: Collection[str]) -> Self:
        """Return the anatomy with some trainable parameters marked as not trained.

        Args:
            names: the names of these parameters.
        """

        def of(layer: Layer) -> Layer:
            idle = all(weight.name in names for weight in layer.weights)
            return replace(layer, trained=layer.trained and not idle)

        return replace(self, idle=tuple(names), layers=tuple(map(of, self.layers)))

    def plain(self) -> dict[str, Any]:
        """Return the anatomy as plain data."""
        data: dict[str, Any] = _PLAIN.dump_python(self, mode="json")
        return data

    @staticmethod
    def read(data: Any) -> "Anatomy":
        """Return the anatomy from the result of `plain`.

        Raises:
            InputError: if the data are no anatomy.
        """
        try:
            return _PLAIN.validate_python(data)
        except ValidationError as error:
            raise InputError(f"an anatomy cannot be read: {one_line(error)}") from None


_PLAIN = TypeAdapter(Anatomy)
"""Reads and writes an anatomy. Each trial does, and pydantic takes 10 ms to make this."""


def describe(network: nn.Module, anatomy: Anatomy) -> None:
    """Store an anatomy in its network. Copies of the network keep it."""
    object.__setattr__(network, _HELD, anatomy)


def held_anatomy(network: nn.Module) -> Anatomy | None:
    """Return the anatomy stored in a network; None if there is none."""
    return vars(network).get(_HELD)


def forget(network: nn.Module) -> None:
    """Remove the anatomy stored in a network."""
    vars(network).pop(_HELD, None)


def modules_of(network: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of a network by path; a module with several paths is under each."""
    return dict(network.named_modules(remove_duplicate=False))


def parameters_of(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a network by name; a parameter with several names is under each."""
    return dict(network.named_parameters(remove_duplicate=False))


def layers_in(network: nn.Module, anatomy: Anatomy) -> Iterator[tuple[Layer, nn.Module]]:
    """Walk the trained layers with their modules, in the order in which they run."""
    modules = modules_of(network)
    for layer in anatomy.layers:
        if layer.trained and layer.path in modules:
            yield layer, modules[layer.path]
