"""Dropout layers."""

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth


class UniformDropout(nn.Dropout):
    """Zeroes each number with probability p while training, and divides the others by 1 − p.

    It is `nn.Dropout` with different masks. On a CPU they take half the time, because torch uses two
    random words per number. On a GPU no other call draws the masks of torch's own kernel; these masks
    are the same for a network alone and in a group.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or not self.p:
            return inputs
        mask = drop_(torch.empty_like(inputs, dtype=torch.float32), self.p).to(inputs.dtype)
        return inputs * mask.div_(1 - self.p)


class StepsFirstDepth(StochasticDepth):  # type: ignore[misc]  # torchvision has no types
    """Stochastic depth of inputs whose samples are on the second axis."""

    def forward(self, input: Tensor) -> Tensor:
        kept: Tensor = super().forward(input.transpose(0, 1))
        return kept.transpose(0, 1)


def drop_(mask: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """Fill a mask with zeros and ones in place, and return it.

    Args:
        mask: a float32 tensor; a smaller type would round p.
        p: the probability of a zero.
        generator: the random generator; None for torch's own.
    """
    return mask.uniform_(generator=generator).ge_(p)
