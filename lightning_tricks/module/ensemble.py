"""Several trained networks that answer as one: their outputs are averaged."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Answering(NamedTuple):
    """A network that answers by itself."""

    network: nn.Module
    """In evaluation mode, on the CPU."""
    example: NDArray[Any]
    """Raw inputs, of two samples or more."""


class Ensemble(nn.Module):
    """The mean of what several networks answer on raw inputs (Hansen and Salamon, 1990).

    A prediction costs as much as one of each member.

    Args:
        members: in evaluation mode.
        probabilities: whether they answer with the logits of one class of several: then probabilities
            are averaged, and the answer is their logarithm, which is a logit again.
    """

    def __init__(self, members: Sequence[nn.Module], *, probabilities: bool) -> None:
        super().__init__()
        self.members, self.probabilities = nn.ModuleList(members), probabilities

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = torch.stack([member(inputs) for member in self.members])
        return averaged(outputs, probabilities=self.probabilities)


def averaged(outputs: Tensor, *, probabilities: bool) -> Tensor:
    """Return the mean over members.

    Args:
        outputs: of shape (members, N, …).
        probabilities: whether they are logits, whose probabilities are averaged; so is the result.
    """
    if probabilities:
        return outputs.log_softmax(-1).logsumexp(0) - math.log(len(outputs))
    return outputs.mean(0)
