"""Dropout layers."""

import torch
from torch import Tensor, nn


class UniformDropout(nn.Dropout):
    """Zeroes each number with probability p while training, and divides the others by 1 − p.

    It is `nn.Dropout` with other masks, drawn in half of the time on a CPU, where torch takes two words
    of its random numbers for each of them. On a GPU torch's own draws in a kernel that no other call
    agrees with; these masks are the same for a network alone and in a group.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or not self.p:
            return inputs
        mask = drop_(torch.empty_like(inputs, dtype=torch.float32), self.p).to(inputs.dtype)
        return inputs * mask.div_(1 - self.p)


def drop_(mask: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """Fill a mask with zeros and ones, in place; return it.

    Args:
        mask: of float32: with fewer digits p would be rounded.
        p: the probability of a zero.
        generator: of what is random; torch's own if there is none.
    """
    return mask.uniform_(generator=generator).ge_(p)
