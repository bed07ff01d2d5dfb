"""One worker, in this process."""

from collections.abc import Callable

from lightning_tricks.task.task import Task
from lightning_tricks.trial.ddp import RankDied, Ranks
from lightning_tricks.trial.result import Epoch
from lightning_tricks.workers.base import Callback, Ended, Job, Lost, Reported, Workers


class Inline(Workers):
    """One worker, in this process.

    Args:
        task: what to train.
        devices: the number of devices that train a trial together.
        interrupted: whether the trial under way is to be dropped.
    """

    def __init__(self, task: Task, devices: int, interrupted: Callable[[], bool]) -> None:
        self.ranks, self.interrupted = Ranks(task, devices), interrupted
        self._job: Job | None = None

    @property
    def free(self) -> int:
        return int(self._job is None)

    def submit(self, job: Job) -> None:
        self._job = job

    def wait(self, callback: Callback, seconds: float) -> None:
        """Train the trial.

        Raises:
            Interrupted: if it was dropped.
        """
        del seconds
        job, self._job = self._job, None
        if job is None:
            return

        def report(epoch: Epoch) -> bool:
            return callback(Reported(job.number, epoch))

        try:
            result = self.ranks.train(job.tricks, job.seed, report, self.interrupted, job.checkpoint)
        except RankDied as death:
            callback(Lost(job.number, str(death)))
        else:
            callback(Ended(job.number, result, lambda: result.weights))

    def close(self) -> None:
        self.ranks.close()
