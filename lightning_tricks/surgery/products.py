"""Weights, described by how a network multiplies with them."""

import math
from collections.abc import Sequence

from lightning_tricks.surgery.anatomy import Fans, Weight
from lightning_tricks.surgery.convolutions import CONVOLUTIONS
from lightning_tricks.surgery.seen import Use


def weight_of(name: str, shape: Sequence[int], use: Use) -> Weight:
    """Return a weight, with the fans that its use implies."""
    if use.function in CONVOLUTIONS:
        transposed, _ = CONVOLUTIONS[use.function]
        kernel = math.prod(shape[2:])
        first, second = shape[:2]
        taken, given = (first // use.groups, second) if transposed else (second, first // use.groups)
        summed = max(kernel // use.stride, 1) if transposed else kernel
        fans = Fans(summed * taken, kernel * given)
        return Weight(name, fans, unit=int(transposed), blocks=use.groups)
    inputs, outputs = use.inputs or (len(shape) - 2,), use.outputs or (len(shape) - 1,)
    fans = Fans(math.prod(shape[axis] for axis in inputs), math.prod(shape[axis] for axis in outputs))
    blocks = math.prod(shape) // max(fans.inputs * fans.outputs, 1)
    of_part = Fans(fans.inputs, fans.outputs // use.parts)
    return Weight(name, of_part, unit=outputs[-1], parts=use.parts, blocks=blocks)


def channels_of(shape: Sequence[int], uses: Sequence[Use]) -> int:
    """Return the number of output channels of a convolution."""
    transposed = CONVOLUTIONS[uses[0].function][0]
    return shape[1] * uses[0].groups if transposed else shape[0]
