"""Weights, described by how a network multiplies with them."""

import math
from collections.abc import Sequence

from lightning_tricks.surgery.anatomy import Fans, Weight
from lightning_tricks.surgery.uses import CONVOLUTIONS, Use


def weight_of(name: str, shape: Sequence[int], use: Use) -> Weight:
    """Return a weight, with the fans that its use implies."""
    if use.function in CONVOLUTIONS:
        transposed, _ = CONVOLUTIONS[use.function]
        kernel = math.prod(shape[2:])
        first, second = shape[:2]
        inputs, outputs = (first // use.groups, second) if transposed else (second, first // use.groups)
        return Weight(name, Fans(kernel * inputs, kernel * outputs), unit=int(transposed))
    if use.left:
        return Weight(name, Fans(shape[-1], shape[-2]), unit=len(shape) - 2)
    return Weight(name, Fans(shape[-2], shape[-1]), unit=len(shape) - 1)


def channels_of(shape: Sequence[int], uses: Sequence[Use]) -> int:
    """Return the number of output channels of a convolution."""
    transposed = CONVOLUTIONS[uses[0].function][0]
    return shape[1] * uses[0].groups if transposed else shape[0]
