"""What a network did with its parameters while a batch passed through it."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class Use:
    """A multiplication with parameters of the network."""

    names: tuple[str, ...]
    """Names of the parameters."""
    function: str
    path: str = ""
    """Path of the module that was running."""
    inputs: tuple[int, ...] = ()
    """Axes of the parameter that are summed over; empty for the second last."""
    outputs: tuple[int, ...] = ()
    """Axes of the parameter that the result has; empty for the last."""
    last: bool = True
    """Whether the result ends with the outputs."""
    parts: int = 1
    """Number of equal slices of the parameter along its outputs, of which one was used."""
    kept: str = ""
    """Why the parameter must not be drawn again; empty if it may."""
    groups: int = 1
    stride: int = 1
    """Product of a convolution's strides."""
    nodes: list[Any] = field(default_factory=list)
    """Nodes of the results in autograd's graph."""


@dataclass
class Call:
    """A module that ran."""

    path: str
    inputs: list[Tensor] = field(default_factory=list)
    """Input tensors of its last call."""
    output: Any = None
    count: int = 0
    nodes: list[Any] = field(default_factory=list)


@dataclass
class Seen:
    """The record of a run."""

    uses: list[Use] = field(default_factory=list)
    calls: dict[str, Call] = field(default_factory=dict)
    """Last call of each module, by path, in the order in which they began."""
    tables: dict[str, None] = field(default_factory=dict)
    drops: list[tuple[str, float]] = field(default_factory=list)
    """Path and rate of each call of a dropout function."""
    attends: bool = False
    takers: dict[int, list[str]] = field(default_factory=dict)
    """Paths of the modules that took a tensor, by the tensor's id."""
    derivatives: list[Any] = field(default_factory=list)
    """Nodes of the results of `torch.autograd.grad`."""
    alive: list[Any] = field(default_factory=list)
    """Tensors kept alive, so that their ids stay unique."""
