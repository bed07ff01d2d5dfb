"""What a LightningModule with steps of its own scores, batch by batch."""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities.data import extract_batch_size
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lightning_tricks.task.quiet import quiet
from lightning_tricks.task.task import Task
from lightning_tricks.verdict.evaluation import evaluator

FEWEST = 8
"""Fewest batches that say anything of how the score varies from batch to batch."""


class Scored(NamedTuple):
    """The scores of a module on the batches of a split."""

    scores: NDArray[np.float64]
    """Of each batch; their mean is the score of the split."""
    samples: int
    marks: Tensor
    """A few numbers of each batch, which are the same if the batches are."""


class _Recorder(pl.Callback):
    """Notes the value that a module logs under a name in each batch."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.scores: list[float] = []
        self.marks: list[float] = []
        self.samples = 0
        self._inside = False

    def on_test_batch_start(self, *given: Any, **unused: Any) -> None:
        del unused
        self._begin(given[2])

    def on_validation_batch_start(self, *given: Any, **unused: Any) -> None:
        del unused
        self._begin(given[2])

    def on_test_batch_end(self, *unused: Any, **named: Any) -> None:
        del unused, named
        self._inside = False

    def on_validation_batch_end(self, *unused: Any, **named: Any) -> None:
        del unused, named
        self._inside = False

    def _begin(self, batch: Any) -> None:
        self._inside = True
        leaves = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
        self.marks += [float(leaf.double().sum()) for leaf in leaves]
        self.samples += extract_batch_size(batch)

    @contextlib.contextmanager
    def listening(self, module: pl.LightningModule) -> Iterator[None]:
        """Listen to what a module logs."""
        log = module.log

        def heard(name: str, value: Any, *rest: Any, **options: Any) -> None:
            if name == self.name and self._inside and isinstance(value, (Tensor, int, float)):
                self.scores.append(float(value))
            log(name, value, *rest, **options)

        object.__setattr__(module, "log", heard)
        try:
            yield
        finally:
            object.__delattr__(module, "log")


@isolate_rng()
def batch_scores(
    task: Task, module: pl.LightningModule, split: Literal["test", "val"], name: str
) -> Scored | None:
    """Return what a module scores on each batch of a split.

    Args:
        task: with the data.
        module: with steps of its own.
        split: to be looked at.
        name: of the score, as the module logs it.

    Returns:
        The scores; None if the module does not log a number in each batch, or there are few of these.
    """
    recorder = _Recorder(name)
    torch.manual_seed(0)  # a loader that shuffles gives every module the same order
    with quiet(), recorder.listening(module):
        trainer = evaluator(task, module, [recorder])
        run = trainer.test if split == "test" else trainer.validate
        run(module, datamodule=task.data_of(module), verbose=False)
        whole = trainer.callback_metrics.get(name)
    batches = len(recorder.scores)
    if whole is None or batches < FEWEST or not np.isfinite(recorder.scores).all():
        return None
    scores = np.array(recorder.scores)
    return Scored(scores - scores.mean() + float(whole), recorder.samples, torch.tensor(recorder.marks))
