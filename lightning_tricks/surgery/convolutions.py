"""Torch's convolutions, as functions."""

import itertools
import math
from typing import Any

CONVOLUTIONS = {
    f"conv{'_transpose' * transposed}{dims}d": (transposed, dims)
    for transposed, dims in itertools.product((False, True), (1, 2, 3))
}
"""Names of the functions, each with whether it is transposed, and its number of dimensions."""


def of_convolution(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int]:
    """Return the groups of a convolution and the product of its strides."""
    stride = kwargs.get("stride", (args[3] if len(args) > 3 else 1))
    strides = stride if isinstance(stride, (tuple, list)) else [stride]
    every = strides if len(strides) > 1 else list(strides) * CONVOLUTIONS[name][1]
    groups = int(kwargs.get("groups", args[6] if len(args) > 6 else 1))
    return groups, math.prod(every)
