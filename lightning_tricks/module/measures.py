"""Measures: functions of outputs and targets."""

from collections.abc import Callable

from torch import Tensor

Measure = Callable[[Tensor, Tensor], Tensor]
"""Function of outputs and targets. A `torchmetrics.Metric` is computed over a whole split."""


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the share of correct outputs.

    Args:
        outputs: scores of shape (N, classes, …); the largest is the prediction. Or binary logits, of
            shape (N,) or (N, 1), or of the shape of targets of 0.0 and 1.0; above 0 means 1.
        targets: class numbers, of shape (N, …), or numbers of the outputs' shape.
    """
    if outputs.dim() == 1 or outputs.shape[1] == 1 or targets.is_floating_point():
        return ((outputs > 0) == (targets > 0.5).view_as(outputs)).float().mean()
    return (outputs.argmax(1) == targets).float().mean()
