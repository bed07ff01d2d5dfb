"""Which parameter a factor of a product is, also through a view, and along which axes it is summed."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_REORDER = {"t", "transpose", "swapaxes", "swapdims", "permute", "movedim", "moveaxis", "adjoint"}
_REORDERED = {"T", "mT", "H", "mH"}
"""Attributes of a tensor that are views with axes in another order."""
_ALIKE = {
    "contiguous",
    "to",
    "float",
    "double",
    "half",
    "bfloat16",
    "type",
    "type_as",
    "clone",
    "cpu",
    "cuda",
}
"""Functions that keep the shape and the values, except for rounding."""
_RIGHT = {"mm": 1, "bmm": 1, "matmul": 1, "__matmul__": 1, "addmm": 2, "addbmm": 2, "baddbmm": 2}
"""Products, with the position of the right factor in their arguments."""
_LEFT = {"mm": 0, "bmm": 0, "matmul": 0, "__matmul__": 0}
"""Products, with the position of the left factor."""
_ROWS = {"linear": 1, "inner": 1}
"""Functions whose second argument holds a row for each output."""
PRODUCTS = {*_RIGHT, *_LEFT, *_ROWS, "einsum", "tensordot", "bilinear"}
"""Functions that multiply matrices."""


class Factor(NamedTuple):
    """A parameter, or a view of one with its axes in another order."""

    name: str
    order: tuple[int, ...]
    """The parameter's axis at each axis of the view."""


class Product(NamedTuple):
    """A parameter as a factor of a product."""

    place: int
    """Its position in the arguments of the function."""
    inputs: Sequence[int]
    """Its axes that are summed over."""
    outputs: Sequence[int]
    """Its axes that the result has in addition to those of the other factors."""
    last: bool
    """Whether the result ends with the last of these axes."""


class Factors:
    """The parameters of a network, and views of them."""

    def __init__(self, network: nn.Module) -> None:
        self._found = {id(p): Factor(n, tuple(range(p.dim()))) for n, p in network.named_parameters()}
        self._alive: list[Any] = []

    def of(self, tensor: Any) -> Factor | None:
        """Return the parameter that a tensor is or shows; None if it is another tensor."""
        return self._found.get(id(tensor))

    def product(self, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """Return the parameter in a product: its name, its axes, and whether the result ends with them.

        Args:
            name: the function, one of `PRODUCTS`.
            args: its arguments.
            kwargs: its keyword arguments.
        """
        if len(args) == 2 and isinstance(args[1], (list, tuple)):  # torch.einsum takes a list, too
            args = (args[0], *args[1])
        for product in _products(name, args, kwargs):
            factor = self.of(args[product.place]) if product.place < len(args) else None
            if factor is not None and len(factor.order) > 1:
                inputs, outputs = (tuple(factor.order[a] for a in axes) for axes in product[1:3])
                return {"name": factor.name, "inputs": inputs, "outputs": outputs, "last": product.last}
        return None

    def note(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], function: Any, result: Any
    ) -> None:
        """Note the result of a function that may be a view of a parameter."""
        held = self.of(args[0]) if args else None
        if held is None or not isinstance(result, Tensor):
            return
        if name in _ALIKE and result.shape == args[0].shape:
            self._keep(result, held)
        elif name in _REORDER or name in _REORDERED:
            probe = torch.empty(tuple(range(1, len(held.order) + 1)), device="meta")
            moved = function(probe, *args[1:], **kwargs)
            self._keep(result, Factor(held.name, tuple(held.order[size - 1] for size in moved.shape)))

    def _keep(self, result: Tensor, factor: Factor) -> None:
        self._found[id(result)] = factor
        self._alive.append(result)


def name_of(function: Any) -> str:
    """Return the name of a torch function, or of the view that it reads as an attribute, such as `T`."""
    name: str = getattr(function, "__name__", "")
    attribute = getattr(function.__self__, "__name__", "") if name == "__get__" else ""
    return attribute if attribute in _REORDERED else name


def _products(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Iterator[Product]:
    """Walk the arguments of a product that may be weights, each with its axes."""
    if name == "einsum":
        yield from _of_einsum(args)
    elif name == "tensordot":
        yield from _of_tensordot(args, kwargs)
    elif name == "bilinear":
        yield Product(2, (1, 2), (0,), last=True)
    elif name in _ROWS:
        yield Product(_ROWS[name], (-1,), (-2,), last=True)
    else:
        if name in _RIGHT:
            yield Product(_RIGHT[name], (-2,), (-1,), last=True)
        if name in _LEFT:
            yield Product(_LEFT[name], (-1,), (-2,), last=False)


def _of_einsum(args: Sequence[Any]) -> Iterator[Product]:
    """Walk the operands of an equation that share an axis that is summed, and have one of their own."""
    if not args or not isinstance(args[0], str):  # operands and lists of axes in turn
        return
    given, arrow, result = args[0].replace(" ", "").replace("...", "").partition("->")
    terms = given.split(",")
    if not arrow:
        result = "".join(sorted(label for label in given if given.count(label) == 1 and label != ","))
    for place, term in enumerate(terms):
        others = "".join(terms[:place] + terms[place + 1 :])
        inputs = [axis for axis, label in enumerate(term) if label not in result and label in others]
        outputs = [axis for axis, label in enumerate(term) if label in result and label not in others]
        if inputs and outputs:
            yield Product(place + 1, inputs, outputs, last=term[outputs[-1]] == result[-1])


def _of_tensordot(args: Sequence[Any], kwargs: dict[str, Any]) -> Iterator[Product]:
    dims = kwargs.get("dims", args[2] if len(args) > 2 else 2)
    first, second = args[0].dim(), args[1].dim()
    if isinstance(dims, int):
        dims = range(first - dims, first), range(dims)
    summed = [{axis % size for axis in axes} for axes, size in zip(dims, (first, second), strict=True)]
    for place, size in enumerate((first, second)):
        outputs = [axis for axis in range(size) if axis not in summed[place]]
        if summed[place] and outputs:
            yield Product(place, sorted(summed[place]), outputs, last=place == 1)


def regular(shape: Sequence[int], unit: int, blocks: int) -> bool:
    """Tell whether the last two axes of a weight are its matrices.

    Args:
        shape: the shape of the weight.
        unit: its axis of output units.
        blocks: its number of matrices.
    """
    return unit >= len(shape) - 2 and blocks == math.prod(shape[:-2])
