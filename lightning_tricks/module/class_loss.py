"""Probabilities as targets of a loss that weights classes or ignores some targets.

Torch divides the loss by the sum of the weights for class numbers, and by the number of samples for
probabilities. We scale the probabilities, so that the loss equals torch's own with `label_smoothing`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_tricks.surgery.graph import functions_called
from lightning_tricks.tricks.targets import probabilities


@dataclass
class ClassLoss:
    """How a loss calls `torch.nn.functional.cross_entropy`."""

    weight: Tensor | None = None
    ignore_index: int = -100
    reduction: str = "mean"

    def hide_ignored(self, targets: Tensor) -> Tensor:
        """Return class numbers with -1 where the loss ignores them."""
        return targets.masked_fill(targets == self.ignore_index, -1)

    def scaled(self, certain: Tensor, changed: Tensor) -> Tensor:
        """Return probabilities scaled so that their loss is normalized like that of class numbers.

        Args:
            certain: probabilities before smoothing, of shape (N, classes, …).
            changed: probabilities after smoothing.
        """
        if self.reduction != "mean":
            return changed
        total = certain.sum((0, *range(2, certain.dim())))  # per class
        weight = torch.ones_like(total) if self.weight is None else self.weight.to(total)
        count = certain.numel() / certain.shape[1]
        return changed * (count / (weight * total).sum().clamp_min(torch.finfo(total.dtype).tiny))


def class_loss(loss: Callable[..., Any], targets: Tensor, classes: int) -> ClassLoss:
    """Return how a loss calls cross entropy, for class numbers.

    Args:
        loss: takes outputs and targets.
        targets: class numbers of shape (N, …).
        classes: the number of outputs.
    """
    outputs = torch.zeros_like(probabilities(targets, classes))
    try:
        with functions_called() as called, torch.no_grad():
            loss(outputs, targets)
    except Exception:  # from the user's code: `check` reports it
        return ClassLoss()
    args, given = called.get("cross_entropy", ((), {}))
    weight = given.get("weight", args[2] if len(args) > 2 else None)
    return ClassLoss(
        None if weight is None else weight.detach(),
        int(given.get("ignore_index", -100)),
        str(given.get("reduction", "mean")),
    )
