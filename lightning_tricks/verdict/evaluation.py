"""Models' outputs on a split, and their scores by block of samples."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_tricks.flavors import flavor_of
from lightning_tricks.module.ensemble import averaged
from lightning_tricks.module.tricks_module import TricksModule, heads
from lightning_tricks.scores import without_split
from lightning_tricks.task import rehearsal
from lightning_tricks.task.quiet import silent_trainer
from lightning_tricks.task.task import Task

BLOCKS = 100
"""Maximum number of blocks that the samples of a split are divided into."""


_KEPT = ("accelerator", "precision", "inference_mode", "limit_val_batches", "limit_test_batches")
"""Settings of a task's Trainer that an evaluation keeps."""


class UnlikeOutputs(ValueError):
    """The outputs for a split are no single tensor."""


def evaluator(
    task: Task, module: pl.LightningModule, callbacks: Sequence[pl.Callback] = ()
) -> pl.Trainer:
    """Return a silent Trainer that tests or validates a module of a task."""
    settings = {k: v for k, v in task.trainer.items() if k in _KEPT}
    return silent_trainer(flavor_of(module), callbacks=callbacks, **settings)


def tests(task: Task, module: pl.LightningModule) -> bool:
    """Tell whether there is a test split, and the module has a step for it."""
    return task.tests() and rehearsal.overrides(module, "test_step")


def example_of(task: Task, module: pl.LightningModule) -> NDArray[Any] | None:
    """Return a few raw inputs for a module; None if they cannot be found in its batches."""
    if isinstance(module, TricksModule):
        return task.example()[0][:2].numpy()
    if not rehearsal.overrides(module, "forward"):
        return None
    given = module.example_input_array
    if given is None:
        batch = task.batch()
        given = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    return given[:2].cpu().numpy() if isinstance(given, Tensor) and given.dim() else None


@isolate_rng()
@torch.no_grad()
def answers(network: nn.Module, batches: Any) -> tuple[Tensor, Tensor]:
    """Return a network's outputs for batches of raw inputs and targets, and the targets.

    Args:
        network: the network, in evaluation mode.
        batches: the batches of a validation or test split.

    Raises:
        UnlikeOutputs: if samples have outputs of different shapes.
    """
    outputs, targets = [], []
    torch.manual_seed(0)  # a loader that shuffles gives every network the same order
    for inputs, some in batches:
        outputs.append(heads(network.to(inputs.device)(inputs))[0].float().cpu())
        targets.append(some.cpu())
    if len({answer.shape[1:] for answer in outputs}) > 1:
        raise UnlikeOutputs("samples have outputs of different shapes")
    return torch.cat(outputs), torch.cat(targets)


def averages_probabilities(task: Task) -> bool:
    """Return whether the outputs of a task's networks are logits, one for each class."""
    return task.loss is F.cross_entropy


def average(task: Task, outputs: Sequence[Tensor]) -> Tensor:
    """Return an ensemble's outputs: the mean of the models' probabilities, or of their outputs."""
    return averaged(torch.stack(list(outputs)), probabilities=averages_probabilities(task))


def measure_of(task: Task, name: str) -> Any:
    """Return the metric function that a task logs under a name; None if there is none.

    Args:
        task: the task, with the metrics.
        name: the name, such as `val/accuracy`.
    """
    name = without_split(name)
    return task.loss if name == "loss" else task.metrics.get(name)


def score(measure: Any, outputs: Tensor, targets: Tensor) -> float:
    """Return a metric's value for a whole split."""
    if isinstance(measure, Metric):
        measure = copy.deepcopy(measure).cpu()
        measure.reset()
    return float(measure(outputs, targets))


def blocks(
    measure: Any, outputs: Tensor, targets: Tensor, samples: Tensor | None = None
) -> NDArray[np.float64]:
    """Return a metric's values by block of samples; their mean is the metric's value.

    These are jackknife pseudo-values (Tukey, 1958): they say how the metric changes when a block is left
    out. If the metric is a mean over samples, they are the means of the blocks. They also give intervals
    for metrics that are not means, such as F1. The same samples make the same blocks for every model.

    Args:
        measure: the metric.
        outputs: a model's outputs, of shape (N, …).
        targets: the targets, of shape (N, …).
        samples: numbers of the samples, of shape (N); by default their positions.

    Returns:
        An array with up to `BLOCKS` values. Only the value for the whole split, if the metric cannot be
        computed without a block.
    """
    whole = score(measure, outputs, targets)
    count = min(len(targets), BLOCKS)
    block_of = (torch.arange(len(targets)) if samples is None else samples) % count
    left = [
        (outputs[block_of != at], targets[block_of != at]) for at in range(count if count > 2 else 0)
    ]
    found = np.array([count * whole - (count - 1) * score(measure, *some) for some in left])
    if not len(found) or not np.isfinite(found).all():
        return np.array([whole])
    shifted: NDArray[np.float64] = found - found.mean() + whole  # for blocks of unequal size
    return shifted
