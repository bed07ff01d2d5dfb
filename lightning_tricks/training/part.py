"""What a trial has to do with its trainings in a group: one, or one for each repeat."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from lightning_tricks.task.task import Task
from lightning_tricks.training.repeats import Means, repeats_of
from lightning_tricks.trial.job import Job
from lightning_tricks.trial.result import Epoch, Result
from lightning_tricks.trial.training import Training

OnEpoch = Callable[[Job, Epoch], bool]
"""Takes a trial and an epoch of it; returns whether the trial is to stop."""


class Part:
    """A trial's part in a group.

    Args:
        job: the trial.
        tasks: one for each repeat of its recipe.
        on_epoch: takes each epoch, the mean of the repeats.
        interrupted: tells whether all is to be dropped.
    """

    def __init__(
        self, job: Job, tasks: Sequence[Task], on_epoch: OnEpoch, interrupted: Callable[[], bool]
    ) -> None:
        self.job, self._again = job, partial(Part, job, tasks, on_epoch, interrupted)
        first = Training(
            tasks[0], job.tricks, job.seed, partial(on_epoch, job), interrupted, job.checkpoint
        )
        self._means = Means(len(tasks), first.report)
        self.trainings = [
            self._beside(number, own.with_own_split())
            for number, own in enumerate(repeats_of(first, tasks))
        ]

    def _beside(self, number: int, training: Training) -> Training:
        """Return a training that stops when all have reported, if there are several."""
        task = training.task.of_recipe(training.tricks)
        if len(self._means) == 1:
            return replace(training, task=task)
        report = partial(self._reported, number)
        return replace(training, task=task, report=report, stops=self._means.stops)

    def _reported(self, number: int, epoch: Epoch) -> bool:
        self._means.hear(number, epoch)
        return False  # the others have yet to say what they have

    @property
    def ended(self) -> bool:
        """Whether all its trainings have ended."""
        return self._means.ended

    def anew(self) -> "Part":
        """Return the same part with nothing of it trained."""
        return self._again()

    def take(self, training: Training, result: Result) -> Result | None:
        """Take what became of a training; return what became of the trial, once that is known."""
        self._means.end(self.trainings.index(training), result)
        if not self.ended:
            return None
        if len(self._means) == 1:
            return result
        return self._means.result(sum(each.seconds for each in self._means.results.values()))
