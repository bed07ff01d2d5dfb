"""What models answer on a split, and how good that is, block of samples by block of samples."""

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
from lightning_tricks.module.tricks_module import TricksModule
from lightning_tricks.scores import without_split
from lightning_tricks.task import rehearsal
from lightning_tricks.task.quiet import silent_trainer
from lightning_tricks.task.task import Task

BLOCKS = 100
"""Number of blocks that the samples of a split are put into; fewer where there are fewer samples."""


def evaluator(
    task: Task, module: pl.LightningModule, callbacks: Sequence[pl.Callback] = ()
) -> pl.Trainer:
    """Return a silent Trainer that tests or validates a module of a task."""
    settings = {k: v for k, v in task.trainer.items() if k in ("accelerator", "precision")}
    return silent_trainer(flavor_of(module), callbacks=callbacks, **settings)


def example_of(task: Task, module: pl.LightningModule) -> NDArray[Any] | None:
    """Return a few raw inputs for a module; None if its batches do not say what its forward takes."""
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
    """Return the outputs of a network for batches of raw inputs and targets, with the targets.

    Args:
        network: in evaluation mode.
        batches: of a validation or test split.
    """
    outputs, targets = [], []
    torch.manual_seed(0)  # a loader that shuffles gives every network the same order
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


def blocks(
    measure: Any, outputs: Tensor, targets: Tensor, samples: Tensor | None = None
) -> NDArray[np.float64]:
    """Return what each block of samples says of a metric; the mean of all is its value.

    These are the pseudo-values of the jackknife (Tukey, 1958): how the metric changes when a block is
    left out. For a mean over samples they are the means of the blocks; metrics such as F1, which are no
    mean, have an interval by them too. The same samples make the same blocks for every model.

    Args:
        measure: the metric.
        outputs: of a model, of shape (N, …).
        targets: of shape (N, …).
        samples: numbers of the samples, of shape (N); by default their places.

    Returns:
        An array with up to `BLOCKS` values. Where the metric cannot be taken of fewer samples, its value
        for the whole split alone.
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
    shifted: NDArray[np.float64] = found - found.mean() + whole  # where blocks are not of one size
    return shifted
