"""The user's arrays, converted to tensors and checked."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_tricks.data.tensor_loader import Split
from lightning_tricks.errors import InputError, one_line

LOST = 0.01
"""Share of a column's standard deviation that rounding may have without a warning."""


def read_split(name: str, pair: tuple[Any, Any], regression: bool = False) -> Split:
    """Return the checked inputs and targets of a split as tensors.

    Args:
        name: the name of the split, for error messages.
        pair: inputs (N, …) and targets, (N,) classes or (N, k) numbers, as any arrays of numbers.
        regression: whether targets are numbers instead of classes.

    Raises:
        InputError: if they are not numbers, not finite, or differ in length.
    """
    inputs, targets = (_tensor(name, *part) for part in zip(("inputs", "targets"), pair, strict=True))
    columns = getattr(pair[0], "columns", None)
    if inputs.is_floating_point():
        _warn_of_rounding(inputs, columns)
        inputs = inputs.float()
    if regression:
        targets = targets.float().reshape(len(targets), -1) if targets.dim() else targets
    elif targets.is_floating_point() and bool((targets == targets.round()).all()):
        targets = targets.long()
    _check(name, Split(inputs, targets), regression, columns)
    return Split(inputs, targets if regression else targets.long())


def _warn_of_rounding(inputs: Tensor, columns: Sequence[Any] | None) -> None:
    """Warn if a column of 64-bit numbers loses its differences in 32 bits, as seconds of time do."""
    if inputs.dtype != torch.float64 or inputs.dim() != 2 or not len(inputs):
        return
    lost = (inputs - inputs.float().double()).std(0, correction=0) > LOST * inputs.std(0, correction=0)
    if bool(lost.any()):
        at = int(lost.nonzero()[0])
        column = at if columns is None else repr(columns[at])
        warnings.warn(
            f"the differences in column {column} are lost in 32-bit numbers: subtract its mean first",
            stacklevel=5,
        )


def _tensor(name: str, what: str, values: Any) -> Tensor:
    try:
        return torch.as_tensor(_array(values))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name}: {what} must be numbers ({one_line(error, 80)}); convert words to class numbers "
            "with pandas.factorize(words)[0], or to columns with pandas.get_dummies(table)"
        ) from None


def _array(values: Any) -> Any:
    if isinstance(values, Tensor):
        return values
    array = np.asarray(values)
    if array.dtype == object:  # columns of several types, such as booleans and numbers
        array = array.astype(np.float64)
    return array if array.flags.writeable else array.copy()  # pandas shares read-only memory


def _check(name: str, split: Split, regression: bool, columns: Sequence[Any] | None) -> None:
    inputs, targets = split
    if inputs.dim() < 2 or inputs.is_complex():
        raise InputError(
            f"{name}: inputs must be real numbers of shape (N, features) or (N, channels, …) "
            f"(got {inputs.dtype} of shape {tuple(inputs.shape)})"
        )
    if targets.dim() != 1 + regression:
        raise InputError(
            f"{name}: targets must be of shape (N,) (got {tuple(targets.shape)}); for several numbers "
            "or labels per sample, set regression=True"
        )
    if not len(inputs) or len(inputs) != len(targets):
        raise InputError(
            f"{name}: inputs and targets must be of one length, at least 1 "
            f"(got {len(inputs)} and {len(targets)})"
        )
    if inputs.is_floating_point() and not torch.isfinite(inputs).all():
        bad = (~torch.isfinite(inputs)).nonzero()
        first = bad[0].tolist()
        where = first if columns is None else f"{first}, in column {columns[first[1]]!r}"
        raise InputError(
            f"{name}: inputs must be finite (got {len(bad)} NaN or infinite values, the first at "
            f"{where}): fill them, or leave their samples out"
        )
    if regression:
        if not torch.isfinite(targets).all():
            raise InputError(f"{name}: targets must be finite (got NaN or infinite values)")
    elif targets.is_floating_point() or int(targets.min()) < 0:
        raise InputError(
            f"{name}: targets must be class numbers from 0 on (got {targets.min().item()}); "
            "`pandas.factorize` makes them of labels, with -1 for a label that is missing; for numbers "
            "to predict, set regression=True"
        )
