"""Several trained networks as one, by the average of their outputs."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Answering(NamedTuple):
    """A network for use without Lightning."""

    network: nn.Module
    """The network, in evaluation mode, on the CPU."""
    example: NDArray[Any]
    """Raw inputs of two samples or more."""


class Ensemble(nn.Module):
    """The mean output of several networks on raw inputs (Hansen and Salamon, 1990).

    A prediction costs as much as one prediction of each member.

    Args:
        members: networks in evaluation mode.
        probabilities: whether outputs are logits of several classes. Then the probabilities are
            averaged, and the result is their logarithm, which is a logit again.
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
        outputs: outputs of shape (members, N, …).
        probabilities: whether they are logits of shape (members, N, classes, …), as `cross_entropy`
            takes them. Then the probabilities are averaged, and the result is a logit again.
    """
    if probabilities:
        classes = min(2, outputs.dim() - 1)
        return outputs.log_softmax(classes).logsumexp(0) - math.log(len(outputs))
    return outputs.mean(0)
