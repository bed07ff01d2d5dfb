"""Scores of a user's LightningModule, batch by batch."""

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
"""Minimum number of batches to estimate how much the score varies between batches."""


class Scored(NamedTuple):
    """The scores of a module on the batches of a split."""

    scores: NDArray[np.float64]
    """Score of each batch; their mean is the score of the split."""
    samples: int
    marks: Tensor
    """Checksums of the batches: equal if the batches are equal."""


class _Recorder(pl.Callback):
    """Records the value that a module logs under a name in each batch."""

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
        """Record what a module logs meanwhile."""
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
    """Return a module's score on each batch of a split.

    Args:
        task: the task, with the data.
        module: the user's module.
        split: the split to score.
        name: name under which the module logs the score.

    Returns:
        The scores; None if the module does not log a number in each batch, or there are few batches.
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
