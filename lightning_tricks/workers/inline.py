"""One worker, in this process."""

from collections.abc import Callable, Sequence

from lightning_tricks.task.task import Task
from lightning_tricks.training.group_size import GroupSize
from lightning_tricks.training.ranks import RankDied
from lightning_tricks.training.runner import Runner
from lightning_tricks.trial.job import Job
from lightning_tricks.trial.result import Epoch, Result
from lightning_tricks.workers.base import Callback, Ended, Lost, Measured, Reported, Workers


class Inline(Workers):
    """One worker, in this process.

    Args:
        task: what to train.
        devices: the number of devices that train a trial together.
        interrupted: returns whether to drop the running trials.
    """

    def __init__(self, task: Task, devices: int, interrupted: Callable[[], bool]) -> None:
        self.runner = Runner(task, devices, interrupted)
        self._jobs: Sequence[Job] = ()
        self._group_size = GroupSize()

    @property
    def count(self) -> int:
        return 1

    @property
    def free(self) -> int:
        return int(not self._jobs)

    def submit(self, jobs: Sequence[Job], group_size: GroupSize) -> None:
        self._jobs, self._group_size = jobs, group_size

    def wait(self, callback: Callback, seconds: float) -> None:
        """Train the trials.

        Raises:
            Interrupted: if they were dropped.
        """
        del seconds
        jobs, self._jobs = self._jobs, ()

        def on_epoch(job: Job, epoch: Epoch) -> bool:
            return callback(Reported(job.number, epoch))

        def on_result(job: Job, result: Result | RankDied) -> None:
            if isinstance(result, RankDied):
                callback(Lost(job.number, str(result)))
            else:
                callback(Ended(job.number, result, lambda: result.weights))

        self.runner.train(
            jobs,
            on_epoch,
            on_result,
            self._group_size,
            lambda group_size: callback(Measured(group_size)),
        )

    def close(self) -> None:
        self.runner.close()
