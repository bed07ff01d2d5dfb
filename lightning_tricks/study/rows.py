"""The rows of a verdict: how good the models of a record are, one by one and together."""

from collections.abc import Sequence

from optuna.trial import FrozenTrial
from torch import Tensor

from lightning_tricks.module.conversion import without_tricks
from lightning_tricks.module.ensemble import Ensemble
from lightning_tricks.module.tricks_module import TricksModule
from lightning_tricks.scores import test_name
from lightning_tricks.selection.intervals import Interval, mean_interval
from lightning_tricks.selection.result import Row
from lightning_tricks.study import evaluation
from lightning_tricks.study.coordinator import Coordinator
from lightning_tricks.study.trained import Trained


class Rows:
    """Score the models of a verdict's trials; each is looked at once.

    Args:
        own: the coordinator of the verdict's study.
    """

    def __init__(self, own: Coordinator) -> None:
        self.task = own.task
        self.trained = Trained(own.study, own.task, own.folder, own.tracker, own.progress)
        self._outputs: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
        """What a trial's model answers on a split, and the targets."""

    def row(self, trials: Sequence[FrozenTrial]) -> Row:
        """Return how good the models of one record are, each of another seed."""
        validation = mean_interval([float(trial.value or 0.0) for trial in trials])
        return Row(validation, self._test(trials))

    def _test(self, trials: Sequence[FrozenTrial]) -> Interval | None:
        """Return the test score of some models, over seeds and samples; over seeds if it must be."""
        if not self.task.tests():
            return None
        for trial in trials:
            self.trained.test(trial)
        measure = evaluation.measure_of(self.task, self.task.monitor)
        answers = [self._answers("test", trial) for trial in trials]
        held = [answer for answer in answers if answer is not None]
        if measure is not None and held:
            return evaluation.interval(measure, [outputs for outputs, _ in held], held[0][1])
        name, tests = test_name(self.task.monitor), self.trained.standing.tests
        found = [tests[t.number][name] for t in trials if name in tests[t.number]]
        if not found:
            self.trained.progress.warn(f"the test split is left out: its metrics have no {name}")
        return mean_interval(found) if found else None

    def ensemble_row(self, trials: Sequence[FrozenTrial]) -> Row | None:
        """Return how good models are together; None for one alone, or for modules of the user's."""
        measure = evaluation.measure_of(self.task, self.task.monitor)
        if len(trials) < 2 or measure is None:
            return None
        intervals: dict[str, Interval] = {}
        for split in ("val", "test") if self.task.tests() else ("val",):
            answers = [self._answers(split, trial) for trial in trials]
            held = [answer for answer in answers if answer is not None]
            if len(held) < len(trials):
                return None
            together = evaluation.average(self.task, [outputs for outputs, _ in held])
            intervals[split] = evaluation.interval(measure, [together], held[0][1])
        # The others' validation intervals are over seeds, of which an ensemble has taken all.
        return Row(Interval(intervals["val"].mean, None, None), intervals.get("test"))

    def ensemble(self, trials: Sequence[FrozenTrial]) -> Ensemble | None:
        """Return models as one; None for one alone, or for modules of the user's."""
        modules = [self.trained.restore(trial) for trial in trials]
        if len(modules) < 2 or not all(isinstance(module, TricksModule) for module in modules):
            return None
        probabilities = evaluation.averages_probabilities(self.task)
        return Ensemble([without_tricks(m) for m in modules], probabilities=probabilities).eval()

    def _answers(self, split: str, trial: FrozenTrial) -> tuple[Tensor, Tensor] | None:
        """Return what a trial's model answers; None if it is a user's module, which has no outputs."""
        if (split, trial.number) not in self._outputs:
            module = self.trained.restore(trial)
            if not isinstance(module, TricksModule):
                return None
            loader = getattr(self.task.data, f"{split}_dataloader")()
            self._outputs[split, trial.number] = evaluation.answers(module.network(), loader)
        return self._outputs[split, trial.number]
