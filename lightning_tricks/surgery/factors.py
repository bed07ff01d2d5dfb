"""Which factor of a product is a weight, and along which axes it is summed."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lightning_tricks.surgery.seen import Use
from lightning_tricks.surgery.views import View, Views

_RIGHT = {"mm": 1, "bmm": 1, "matmul": 1, "__matmul__": 1, "addmm": 2, "addbmm": 2, "baddbmm": 2}
"""Products, with the position of the right factor in their arguments."""
_LEFT = {"mm": 0, "bmm": 0, "matmul": 0, "__matmul__": 0}
"""Products, with the position of the left factor."""
_ROWS = {"linear": 1, "inner": 1}
"""Functions whose second argument holds a row for each output."""
PRODUCTS = {*_RIGHT, *_LEFT, *_ROWS, "einsum", "tensordot", "bilinear"}
"""Functions that multiply matrices."""


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


def used_in(views: Views, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Use | None:
    """Return how a product uses a parameter; None if no factor is one.

    Args:
        views: the parameters of the network.
        name: the function, one of `PRODUCTS`.
        args: its arguments.
        kwargs: its keyword arguments.
    """
    if len(args) == 2 and isinstance(args[1], (list, tuple)):  # torch.einsum takes a list, too
        args = (args[0], *args[1])
    for product in _products(name, args, kwargs):
        factor = args[product.place] if product.place < len(args) else None
        view = views.of(factor)
        if view is not None and len(view.axes) > 1:
            return _use(name, view, views.parameter(view.name), factor, product)
    return None


def _use(function: str, view: View, parameter: Any, factor: Any, product: Product) -> Use:
    inputs, outputs = view.of(product.inputs), view.of(product.outputs)
    parts = 1
    if outputs:
        parts = parameter.shape[outputs[-1]] // max(factor.shape[product.outputs[-1]], 1)
    return Use(
        (view.name,),
        function,
        inputs=inputs,
        outputs=outputs,
        last=product.last,
        parts=max(parts, 1),
        kept=view.kept,
    )


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
    given, arrow, result = args[0].replace(" ", "").partition("->")
    at_end = [term.startswith("...") for term in given.split(",")]
    given, result = given.replace("...", ""), result.replace("...", "")
    terms = given.split(",")
    if not arrow:
        result = "".join(sorted(label for label in given if given.count(label) == 1 and label != ","))
    for place, term in enumerate(terms):
        first = -len(term) if at_end[place] else 0
        others = "".join(terms[:place] + terms[place + 1 :])
        inputs = [
            axis for axis, label in enumerate(term, first) if label not in result and label in others
        ]
        outputs = [
            axis for axis, label in enumerate(term, first) if label in result and label not in others
        ]
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
