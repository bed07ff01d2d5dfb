"""What a trial has to do with its trainings in a group: one, or one for each repeat."""

from collections.abc import Callable, Sequence
from functools import partial

from lightning_tricks.fusion.trainee import Trainee
from lightning_tricks.task.task import Task
from lightning_tricks.trial.job import Job
from lightning_tricks.trial.repeats import joined, mean_of, path_of, seed_of, spoils
from lightning_tricks.trial.result import Epoch, Result

Hear = Callable[[Job, Epoch], bool]
"""Takes a trial and an epoch of it; returns whether the trial is to stop."""


class Part:
    """A trial's part in a group.

    Args:
        job: the trial.
        tasks: one for each repeat of its record.
        hear: is told of each epoch, by the mean of the repeats.
    """

    def __init__(self, job: Job, tasks: Sequence[Task], hear: Hear) -> None:
        self.job, self._tasks, self._hear = job, tasks, hear
        self.trainees = [
            Trainee(
                task.of_seed(seed_of(job.seed, number)).of_record(job.tricks),
                job.tricks,
                seed_of(job.seed, number),
                partial(self._reported, number),
                path_of(job.checkpoint, number),
                self._stops,
            )
            for number, task in enumerate(tasks)
        ]
        self._heard: list[list[Epoch]] = [[] for _ in tasks]
        self._results: dict[int, Result] = {}
        self._epochs: list[Epoch] = []
        self._stop = False

    @property
    def ended(self) -> bool:
        """Whether all its trainings have ended."""
        return len(self._results) == len(self.trainees)

    def anew(self) -> "Part":
        """Return the same part with nothing of it trained."""
        return Part(self.job, self._tasks, self._hear)

    def _reported(self, number: int, epoch: Epoch) -> bool:
        if len(self.trainees) == 1:
            return self._hear(self.job, epoch)
        self._heard[number].append(epoch)
        return False  # the others have yet to say what they have

    def _stops(self) -> bool:
        """Tell whether the repeats are to stop, once all have reported an epoch."""
        while not self._stop and self._complete(len(self._epochs)):
            at = len(self._epochs)
            epochs = [heard[min(at, len(heard) - 1)] for heard in self._heard]
            self._epochs.append(mean_of(epochs, at))
            self._stop = self._hear(self.job, self._epochs[-1])
        return self._stop

    def _complete(self, at: int) -> bool:
        """Tell whether all have reported an epoch, or ended before it, but for all of them."""
        if len(self.trainees) == 1:
            return False
        ended = [number in self._results for number in range(len(self.trainees))]
        reported = [len(heard) > at for heard in self._heard]
        return any(reported) and all(e or r for e, r in zip(ended, reported, strict=True))

    def take(self, trainee: Trainee, result: Result) -> Result | None:
        """Take what became of a training; return what became of the trial, once that is known."""
        self._results[self.trainees.index(trainee)] = result
        if len(self.trainees) == 1:
            return result
        self._stops()  # the others may have waited for this one
        self._stop |= spoils(result)
        if len(self._results) < len(self.trainees):
            return None
        results = [self._results[number] for number in range(len(self.trainees))]
        return joined(results, self._epochs, sum(result.seconds for result in results))
