"""A trial's trainings in a group: one, or one for each repeat."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from lightning_tricks.task.task import Task
from lightning_tricks.training.repeats import Means, repeats_of
from lightning_tricks.trial.job import Job
from lightning_tricks.trial.result import Epoch, Result
from lightning_tricks.trial.training import Training

OnEpoch = Callable[[Job, Epoch], bool]
"""Takes a trial and one of its epochs; returns whether the trial must stop."""


class Part:
    """A trial's part in a group.

    Args:
        job: the trial.
        tasks: the task of each repeat.
        on_epoch: takes each epoch, as the mean of the repeats.
        interrupted: returns whether to drop everything.
    """

    def __init__(
        self, job: Job, tasks: Sequence[Task], on_epoch: OnEpoch, interrupted: Callable[[], bool]
    ) -> None:
        self.job, self._again = job, partial(Part, job, tasks, on_epoch, interrupted)
        first = Training.of(tasks[0], job, partial(on_epoch, job), interrupted)
        self._means = Means(len(tasks), first.report)
        self.trainings = [
            self._beside(number, own.with_own_split())
            for number, own in enumerate(repeats_of(first, tasks))
        ]

    def _beside(self, number: int, training: Training) -> Training:
        """Return a training that stops only once all repeats have reported the epoch."""
        task = training.task.of_recipe(training.tricks)
        if len(self._means) == 1:
            return replace(training, task=task)
        report = partial(self._reported, number)
        return replace(training, task=task, report=report, stops=self._means.stops)

    def _reported(self, number: int, epoch: Epoch) -> bool:
        self._means.hear(number, epoch)
        return False  # the other repeats have not reported yet

    @property
    def ended(self) -> bool:
        """Whether all its trainings have ended."""
        return self._means.ended

    def anew(self) -> "Part":
        """Return the same part, untrained."""
        return self._again()

    def take(self, training: Training, result: Result) -> Result | None:
        """Take a training's result; return the trial's result once all its trainings ended."""
        self._means.end(self.trainings.index(training), result)
        if not self.ended:
            return None
        if len(self._means) == 1:
            return result
        return self._means.result(sum(each.seconds for each in self._means.results.values()))
