"""What outputs are measured by: functions of them and of the targets."""

from collections.abc import Callable

from torch import Tensor

Measure = Callable[[Tensor, Tensor], Tensor]
"""Takes outputs and targets. A `torchmetrics.Metric` sees a whole split before it is computed."""


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the share of targets that the outputs name.

    Args:
        outputs: of shape (N, classes, …), of which the largest is the answer. Or logits of yes and no,
            of shape (N,) or (N, 1), or as many as there are targets of 0.0 and 1.0: above 0 is yes.
        targets: class numbers, of shape (N, …), or numbers of the outputs' shape.
    """
    if outputs.dim() == 1 or outputs.shape[1] == 1 or targets.is_floating_point():
        return ((outputs > 0) == (targets > 0.5).view_as(outputs)).float().mean()
    return (outputs.argmax(1) == targets).float().mean()
