"""Optimizers that are a pure formula, which turns a gradient into a step.

A formula sees one flat tensor and plain numbers, and uses arithmetic that broadcasts. So it also takes
a tensor in place of a number: one number for each of many models trained at once.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_tricks.tricks.optimizers import flat
from lightning_tricks.tricks.optimizers.base import OptimizerTrick
from lightning_tricks.tricks.optimizers.flat import State

Number = float | Tensor


class FormulaTrick(OptimizerTrick):
    """An optimizer whose step depends on the gradient and on what it kept of earlier gradients."""

    def build(self, groups: list[dict[str, Any]], module: nn.Module) -> Optimizer:
        del module
        sizes = [sum(parameter.numel() for parameter in group["params"]) for group in groups]
        large = self.torch_optimizer(groups) if max(sizes, default=0) > flat.FLAT_NUMBERS else None
        return large or flat.FlatOptimizer(groups, self.lr, self.update, self.direct)

    def torch_optimizer(self, groups: list[dict[str, Any]]) -> Optimizer | None:
        """Return torch's own optimizer of this formula, for large networks; None if torch has none."""
        del groups
        return None

    def direct(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the gradients, one for each parameter, as the formula should see them."""
        return gradients

    @abstractmethod
    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        """Return the step to add to the weights, of the gradient's shape.

        Args:
            gradient: the flat gradient of a group's parameters.
            state: what the formula keeps between steps; empty before the first.
            lr: the learning rate of this step, η.
        """


def start(state: State, name: str, like: Tensor) -> Tensor:
    """Return a tensor of the state, zeros before the first step."""
    found: Tensor = state[name] if name in state else torch.zeros_like(like)
    return found


def average(state: State, name: str, value: Tensor, decay: Number) -> Tensor:
    """Add a value to an exponential average in the state, and return the average."""
    average = start(state, name, value).lerp_(value, 1 - decay)
    state[name] = average
    return average
