"""The rows of a verdict: scores of a recipe's models, one by one and as an ensemble."""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, TypeGuard

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from optuna.trial import FrozenTrial
from torch import Tensor

from lightning_tricks.errors import error_words, one_line
from lightning_tricks.module.tricks_module import TricksModule
from lightning_tricks.scores import test_name, without_split
from lightning_tricks.search.keys import SEED
from lightning_tricks.selection.crossed import crossed_interval
from lightning_tricks.selection.intervals import Interval, mean_interval
from lightning_tricks.selection.result import Row
from lightning_tricks.study.session import Session
from lightning_tricks.verdict import evaluation
from lightning_tricks.verdict.batch_scores import batch_scores
from lightning_tricks.verdict.trained import Trained

Values = NDArray[np.float64]


class Answers(NamedTuple):
    """A model's outputs on samples."""

    outputs: Tensor
    targets: Tensor
    samples: Tensor
    """Numbers of the samples, the same for every model."""


class ModelScores:
    """Scores the models of a verdict's trials, each once.

    Recipes are compared on samples that took no part in choosing: the test split, and the validation
    samples if each seed has its own split. Without these, on the validation split.

    Args:
        own: the session of the verdict.
    """

    def __init__(self, own: Session) -> None:
        self.task = own.task
        self.trained = Trained(own)
        self.measure = evaluation.measure_of(self.task, self.task.monitor)
        self.tests = evaluation.tests(self.task, self.task.module(self.task.reference()))
        """Whether models are scored on a test split."""
        self.validates = self.task.splits_vary
        """Whether recipes are compared on the validation samples of their own splits."""
        self._compared: dict[int, Values] = {}
        self._tested: dict[int, Values] = {}
        self._together: dict[tuple[str, tuple[int, ...]], Values | None] = {}
        self._seen: set[int] = set()
        self._said = False
        self._marks: Tensor | None = None
        """Targets or batch checksums of the first model's samples, to check that others' are equal."""

    @property
    def fresh(self) -> bool:
        """Whether the comparison's samples took no part in choosing."""
        return self.tests or self.validates

    @property
    def metric(self) -> str:
        """Name of the score for the comparison."""
        if self._adds_validation:
            return without_split(self.task.monitor)
        return test_name(self.task.monitor) if self.tests else self.task.monitor

    @property
    def splits(self) -> str:
        """The splits of the comparison's samples, in words."""
        validates = self._adds_validation or not self.tests
        return " and ".join(["validation"] * validates + ["test"] * self.tests)

    @property
    def _adds_validation(self) -> bool:
        """Whether validation samples are compared, too: a score by sample is needed to join them."""
        return self.validates and (self.measure is not None or not self.tests)

    @property
    def samples(self) -> int:
        """Number of samples in the comparison."""
        return len(self._seen)

    def compared(self, trials: Sequence[FrozenTrial]) -> Values:
        """Return a recipe's scores for the comparison, of shape (seeds, blocks of samples)."""
        for trial in trials:
            if trial.number not in self._compared:
                self._score(trial)
        return _stacked([self._compared[trial.number] for trial in trials])

    def _tests_of(self, trials: Sequence[FrozenTrial]) -> Interval | None:
        """Return the models' mean test score; None if there is no test split, or they fail on it."""
        if not self.tests:
            return None
        try:
            self.compared(trials)
        except Exception as error:  # from the user's data or metric: go on without the test split
            self._leave_tests_out(error)
            return None
        return crossed_interval(_stacked([self._tested[trial.number] for trial in trials]))

    def _leave_tests_out(self, error: Exception) -> None:
        why = f"its metrics have no {error}" if isinstance(error, KeyError) else one_line(error)
        self.trained.session.progress.warn(f"the test split is left out: {type(error).__name__}: {why}")
        self.tests = False

    def _score(self, trial: FrozenTrial) -> None:
        """Score a trial's model on the test split, and on all samples of the comparison."""
        module, number = self.trained.restore(trial), trial.number
        score = np.array([float(trial.value or 0.0)])
        if self.tests:
            self.trained.test(trial)
            score = np.array([self.trained.study_state.tests[number][test_name(self.task.monitor)]])
        if isinstance(module, TricksModule) and self.measure is not None:
            with suppress(evaluation.UnlikeOutputs):
                self._score_by_sample(trial, module, score)
                return
        self._tested[number] = self._compared[number] = self._by_batch(module, score)

    def _score_by_sample(self, trial: FrozenTrial, module: TricksModule, score: Values) -> None:
        parts = [self._answers("test", trial, module)] if self.tests else []
        self._tested[trial.number] = self._blocks(parts, score)
        if self.validates or not self.tests:
            parts.append(self._answers("val", trial, module))
        self._compared[trial.number] = self._blocks(parts, score)

    def _by_batch(self, module: pl.LightningModule, score: Values) -> Values:
        """Return the score of a user's module: by batch if it logs that, else the given score."""
        name = test_name(self.task.monitor) if self.tests else self.task.monitor
        try:
            found = batch_scores(self.task, module, "test" if self.tests else "val", name)
        except Exception as error:  # outside of training the user's step may miss something
            self._say(f"no score of {name} by batch: {error_words(error)}")
            return score
        if found is None or self._differs(found.marks):
            return score
        if not self.tests and not np.isclose(found.scores.mean(), score.mean(), rtol=1e-3, atol=1e-6):
            self._say(
                f"no score of {name} by batch: the kept weights have {found.scores.mean():.4f}, and had "
                f"{score.mean():.4f} in training; does a callback change them?"
            )
            return score
        self._seen |= set(range(found.samples))
        return found.scores

    def _say(self, why: str) -> None:
        """Say once why the user's module has no score by batch."""
        if not self._said:
            self._said = True
            self.trained.session.progress.warn(why)

    def _blocks(self, parts: Sequence[Answers], score: Values) -> Values:
        """Return the score by block of samples; the given score if there are no blocks."""
        if not parts or (self._fixed and self._differs(parts[0].targets)):
            return score
        found = Answers(*(torch.cat(part) for part in zip(*parts, strict=True)))
        self._seen |= set(found.samples.tolist())
        return evaluation.blocks(self.measure, *found)

    @property
    def _fixed(self) -> bool:
        """Whether the first samples of the comparison are the same for every model."""
        return self.tests or not self.task.splits_vary

    def _differs(self, marks: Tensor) -> bool:
        """Return whether a model saw other samples than the first model: a loader may shuffle."""
        if self._marks is None:
            self._marks = marks
        return not torch.equal(self._marks, marks)

    def check_test_split(self, trials: Sequence[FrozenTrial]) -> None:
        """If models cannot be scored on the test split, leave it out from now on, and say why."""
        try:
            for trial in trials:
                self.compared([trial])
        except Exception as error:  # from the user's data or metric: go on without the test split
            if not self.tests:
                raise
            self._leave_tests_out(error)
            self._compared, self._marks = {}, None
            self._seen.clear()

    def row(self, trials: Sequence[FrozenTrial]) -> Row:
        """Return the scores of a recipe's models, one per seed, as a row; an empty one for no models."""
        if not trials:
            return Row(None, None)
        validation = mean_interval([float(trial.value or 0.0) for trial in trials])
        return Row(validation, self._tests_of(trials))

    def ensemble_row(self, trials: Sequence[FrozenTrial]) -> Row | None:
        """Return an ensemble's scores as a row; None for a single model, or for the user's modules."""
        validation = None if self.task.splits_vary else self.together("val", trials)
        test = self.together("test", trials) if self.tests else None
        if validation is test is None:
            return None
        # One ensemble has one validation score; the intervals of other rows are over seeds.
        score = None if validation is None else Interval(float(validation.mean()), None, None)
        return Row(score, None if test is None else crossed_interval(test))

    def together(self, split: str, trials: Sequence[FrozenTrial]) -> Values | None:
        """Return the score of an ensemble on a split, of shape (1, blocks of samples)."""
        key = split, tuple(trial.number for trial in trials)
        if key not in self._together:
            try:
                self._together[key] = self._score_together(split, trials)
            except (
                Exception
            ) as error:  # from the user's data or metric, or the models do not fit in memory together
                self.trained.session.progress.warn(f"the ensemble has no score: {error_words(error)}")
                self._together[key] = None
        return self._together[key]

    def _score_together(self, split: str, trials: Sequence[FrozenTrial]) -> Values | None:
        modules = [self.trained.restore(trial) for trial in trials]
        if len(modules) < 2 or self.measure is None or not _ours(modules):
            return None
        answers = [self._answers(split, *pair) for pair in zip(trials, modules, strict=True)]
        together = evaluation.average(self.task, [answer.outputs for answer in answers])
        return evaluation.blocks(self.measure, together, answers[0].targets)[None]

    def _answers(self, split: str, trial: FrozenTrial, module: TricksModule) -> Answers:
        """Return the outputs of a trial's model on a split."""
        data = self.task.of_seed(trial.user_attrs[SEED]).data
        outputs, targets = evaluation.answers(module.network(), getattr(data, f"{split}_dataloader")())
        samples = torch.arange(len(targets))
        if split == "val" and self.task.splits_vary:  # numbers different from the test samples'
            samples = data.validation_samples + len(data.splits["test"].targets)
        return Answers(outputs, targets, samples)


def _ours(modules: Sequence[pl.LightningModule]) -> TypeGuard[Sequence[TricksModule]]:
    """Return whether all modules have outputs to average; the user's own modules have none."""
    return all(isinstance(module, TricksModule) for module in modules)


def _stacked(rows: Sequence[Values]) -> Values:
    """Return several models' scores, of shape (seeds, blocks); (seeds, 1) if their blocks differ."""
    if len({len(row) for row in rows}) > 1:
        rows = [row.mean(keepdims=True) for row in rows]
    return np.stack(rows)
