"""Scores of a user's LightningModule, batch by batch."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities.data import extract_batch_size
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torchmetrics import Metric

from lightning_tricks.surgery.replace import replaced_attributes
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


class _Metrics:
    """Computes the values of a module's torchmetrics on each batch alone."""

    def __init__(self, module: pl.LightningModule) -> None:
        self._all = [metric for metric in module.modules() if isinstance(metric, Metric)]
        self._alone = {id(metric): metric.clone() for metric in self._all}
        self._given: dict[int, list[tuple[Any, Any]]] = {}
        """What each metric was updated with in this batch."""

    def begin(self) -> None:
        """Begin a batch."""
        self._given.clear()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Note meanwhile what the metrics are updated with."""
        with contextlib.ExitStack() as stack:
            for metric in self._all:
                stack.enter_context(replaced_attributes(metric, update=self._noting(metric)))
            yield

    def value(self, metric: Metric) -> float:
        """Return a metric's value on this batch; not a number if it has none."""
        try:
            alone = self._alone[id(metric)].to(metric.device)
            alone.reset()
            for args, kwargs in self._given[id(metric)]:
                alone.update(*args, **kwargs)
            return float(alone.compute())
        except Exception:  # a metric that was not seen, or cannot be computed on a single batch
            return float("nan")

    def _noting(self, metric: Metric) -> Callable[..., None]:
        update = metric.update

        def noting(*args: Any, **kwargs: Any) -> None:
            self._given.setdefault(id(metric), []).append((args, kwargs))
            update(*args, **kwargs)

        return noting


class _Recorder(pl.Callback):
    """Records the value that a module logs under a name in each batch."""

    def __init__(self, name: str, module: pl.LightningModule) -> None:
        self.name, self.module = name, module
        self.metrics = _Metrics(module)
        self.scores: list[float] = []
        self.sizes: list[int] = []
        """Number of samples in each batch: as logged, else as counted."""
        self.marks: list[float] = []
        self.of_metric = False
        """Whether the module logs a metric of torchmetrics, and not a number."""
        self._inside = False
        self._batch: Any = None

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
        self._batch = batch
        self.metrics.begin()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Record what the module logs meanwhile."""
        log = self.module.log

        def heard(name: str, value: Any, *rest: Any, **options: Any) -> None:
            if name == self.name and self._inside:
                self._hear(value, options.get("batch_size"))
            log(name, value, *rest, **options)

        with self.metrics.listening(), replaced_attributes(self.module, log=heard):
            yield

    def _hear(self, value: Any, size: int | None) -> None:
        self.sizes.append(extract_batch_size(self._batch) if size is None else size)
        if isinstance(value, Metric):
            self.of_metric = True
            self.scores.append(self.metrics.value(value))
        elif isinstance(value, (Tensor, int, float)):
            self.scores.append(float(value))

    def fits(self, whole: float) -> bool:
        """Tell whether there are enough scores, and their mean is the score of the split.

        It is not for a metric such as AUROC, which is no mean over samples.
        """
        scores = np.array(self.scores)
        if not FEWEST <= len(scores) == len(self.sizes) or not np.isfinite(scores).all():
            return False
        if not self.of_metric:
            return True
        mean, error = np.average(scores, weights=self.sizes), scores.std(ddof=1) / np.sqrt(len(scores))
        return bool(abs(mean - whole) <= error + 1e-6)


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
        The scores; None if the module does not log the score in each batch, if a metric of torchmetrics
        is no mean over batches, or if there are few batches.
    """
    recorder = _Recorder(name, module)
    torch.manual_seed(0)  # a loader that shuffles gives every module the same order
    with quiet(), recorder.listening():
        trainer = evaluator(task, module, [recorder])
        run = trainer.test if split == "test" else trainer.validate
        run(module, datamodule=task.data_of(module), verbose=False)
        whole = trainer.callback_metrics.get(name)
    if whole is None or not recorder.fits(float(whole)):
        return None
    scores = np.array(recorder.scores)
    marks = torch.tensor(recorder.marks)
    return Scored(scores - scores.mean() + float(whole), sum(recorder.sizes), marks)
