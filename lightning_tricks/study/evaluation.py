"""What models answer on a split, and how good that is, over seeds and samples."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_tricks.module.ensemble import averaged
from lightning_tricks.scores import without_split
from lightning_tricks.selection.intervals import Interval, bootstrap
from lightning_tricks.task.task import Task


@torch.no_grad()
def answers(network: nn.Module, batches: Any) -> tuple[Tensor, Tensor]:
    """Return the outputs of a network for batches of raw inputs and targets, with the targets.

    Args:
        network: in evaluation mode.
        batches: of a validation or test split.
    """
    outputs, targets = [], []
    for inputs, some in batches:
        outputs.append(network.to(inputs.device)(inputs).float().cpu())
        targets.append(some.cpu())
    return torch.cat(outputs), torch.cat(targets)


def averages_probabilities(task: Task) -> bool:
    """Tell whether the outputs of a task's networks are logits, one for each class."""
    return task.loss is F.cross_entropy


def average(task: Task, outputs: Sequence[Tensor]) -> Tensor:
    """Return what models answer together: the mean of their probabilities, or of their outputs."""
    return averaged(torch.stack(list(outputs)), probabilities=averages_probabilities(task))


def measure_of(task: Task, name: str) -> Any:
    """Return the function of outputs and targets that a task logs under a name; None if there is none.

    Args:
        task: with the metrics.
        name: such as `val/accuracy`.
    """
    name = without_split(name)
    return task.loss if name == "loss" else task.metrics.get(name)


def score(measure: Any, outputs: Tensor, targets: Tensor) -> float:
    """Return the value of a metric for a whole split."""
    if isinstance(measure, Metric):
        measure = copy.deepcopy(measure).cpu()
        measure.reset()
    return float(measure(outputs, targets))


def interval(measure: Any, outputs: Sequence[Tensor], targets: Tensor) -> Interval:
    """Return the mean of a metric over models, for other seeds and another split of this size."""

    def of_arrays(some: NDArray[Any], true: NDArray[Any]) -> float:
        return score(measure, torch.from_numpy(some), torch.from_numpy(true))

    return bootstrap(of_arrays, [np.asarray(output) for output in outputs], np.asarray(targets))
