"""Train the trials of a task: as groups if possible, else one by one."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch

from lightning_tricks.errors import one_line
from lightning_tricks.fusion.fused import train_as_one
from lightning_tricks.task.task import Task
from lightning_tricks.training.group_size import EVERYTHING, GroupSize, short
from lightning_tricks.training.part import OnEpoch, Part
from lightning_tricks.training.ranks import RankDied, Ranks
from lightning_tricks.training.refusals import Refusals, device_of
from lightning_tricks.training.repeats import tasks_of, train_together
from lightning_tricks.training.threads import best_threads
from lightning_tricks.trial.checkpoints import of_group
from lightning_tricks.trial.fit import fit
from lightning_tricks.trial.job import Job
from lightning_tricks.trial.result import Interrupted, Result
from lightning_tricks.trial.training import Training
from lightning_tricks.tricks.recipe import Tricks

OnResult = Callable[[Job, Result | RankDied], None]
"""Takes a trial and its result, or `RankDied` if one of its processes died."""
Learn = Callable[[GroupSize], Any]
"""Takes a measured group size."""


class Runner:
    """Trains the trials of a task, one after the other or several at a time.

    Args:
        task: what to train.
        devices: the number of devices that train a trial together.
        interrupted: called before each step; returns whether to drop everything.

    Raises:
        InputError: if other processes need the task, and it cannot be pickled.
    """

    def __init__(
        self, task: Task, devices: int = 1, interrupted: Callable[[], bool] = lambda: False
    ) -> None:
        self.task, self.interrupted = task, interrupted
        self.ranks = Ranks(task, devices) if devices > 1 else None
        self.refusals = Refusals(task, devices)
        self._told: set[str] = set()
        self._measured = False

    @cached_property
    def tasks(self) -> list[Task]:
        """The task of each repeat of a trial."""
        return tasks_of(self.task)

    def _tasks(self, job: Job) -> list[Task]:
        """Return the task of each of a job's trainings; before a pause there is only one."""
        return self.tasks if job.contends else self.tasks[:1]

    @cached_property
    def device(self) -> torch.device:
        """The device that trains groups."""
        return device_of(self.task)

    def train(
        self,
        jobs: Sequence[Job],
        on_epoch: OnEpoch,
        on_result: OnResult,
        size: GroupSize = EVERYTHING,
        learn: Learn = lambda size: None,
    ) -> None:
        """Train trials, and pass on each result as soon as it is there.

        Trials that cannot be grouped are trained one by one, and the first result says why.

        Args:
            jobs: trials whose networks probably have the same structure.
            on_epoch: takes each epoch of a trial.
            on_result: takes each trial's result.
            size: the group size known so far.
            learn: takes a newly measured group size.

        Raises:
            Interrupted: soon after `interrupted()` becomes true.
        """
        if size.automatic and not self._measured:
            torch.set_num_threads(best_threads(self.task))
            self._measured = True
        known, size = size, self._grown(size, jobs)
        if size != known:
            learn(size)
        refused = self.refusals.of(jobs[0].tricks)
        trials = len(jobs) if refused else max(size.best // len(self._tasks(jobs[0])), 1)
        for start in range(0, len(jobs), trials):
            self._train(jobs[start : start + trials], on_epoch, on_result, size)

    def seconds(self, count: int, recipe: Tricks | None = None) -> tuple[float, str]:
        """Measure a group of `count`; return the seconds per training, and why it cannot be grouped."""
        recipe = self.task.reference() if recipe is None else recipe
        runner = Runner(short(self.task), interrupted=self.interrupted)
        jobs = [Job(number, recipe, number) for number in range(count)]
        start = time.perf_counter()
        runner.train(jobs, lambda job, epoch: False, lambda job, result: None)
        return (time.perf_counter() - start) / count, runner.refusals.of(recipe)

    def _grown(self, size: GroupSize, jobs: Sequence[Job]) -> GroupSize:
        """Measure larger groups of the jobs' shape if the best group size is not known yet."""
        wanted = sum(len(self._tasks(job)) for job in jobs)
        if size.final or wanted == 1:
            return size
        if not self.refusals.of(jobs[0].tricks):
            grown = size.grown(wanted, lambda count: self.seconds(count, jobs[0].tricks))
            if not grown.unfit:
                return grown
            self.refusals.add(jobs[0].tricks, grown.why)
        return size.refused(self.refusals.of_all) if self.refusals.of_all else size

    def _train(
        self, jobs: Sequence[Job], on_epoch: OnEpoch, on_result: OnResult, size: GroupSize
    ) -> None:
        """Train trials as a group if possible, and the rest one by one."""
        left = {job.number: job for job in jobs}
        # A trial that paused goes on in the way it began: checkpoints have two formats.
        begun = {job.number: of_group(job.checkpoint) for job in jobs}
        together = [job for job in jobs if begun[job.number] is not False]
        several = sum(len(self._tasks(job)) for job in together) > 1 or any(begun.values())

        def ended(job: Job, result: Result | RankDied) -> None:
            del left[job.number]
            on_result(job, result)

        if several and size.best > 1 and not self.refusals.of(jobs[0].tricks):
            parts = [Part(job, self._tasks(job), on_epoch, self.interrupted) for job in together]
            for fused, whole in self._together(parts):
                ended(fused, whole)
        why = self.refusals.of(jobs[0].tricks) if len(left) > 1 else ""
        which = "" if self.refusals.of_all else " of its shape"
        told = {*self._told, size.why, ""}
        news = "" if why in told else f"trials{which} are trained one by one: {why}"
        for job in list(left.values()):
            result: Result | RankDied = self._alone(job, on_epoch)
            if news and isinstance(result, Result) and why not in self._told:
                warning = "; ".join(filter(None, (result.warning, news)))
                result = replace(result, warning=warning)
                self._told.add(why)
            ended(job, result)

    def close(self) -> None:
        """End the training processes."""
        if self.ranks is not None:
            self.ranks.close()

    def _alone(self, job: Job, on_epoch: OnEpoch) -> Result | RankDied:
        """Train a trial by itself: over several processes, with repeats in turns, or plainly."""
        report = partial(on_epoch, job)
        tasks = self._tasks(job)
        training = Training.of(tasks[0], job, report, self.interrupted)
        if len(tasks) > 1:
            return train_together(training, tasks)
        if self.ranks is None:
            return fit(training)
        try:
            return self.ranks.train(training)
        except RankDied as death:
            return death

    def _together(self, parts: Sequence[Part]) -> Iterator[tuple[Job, Result]]:
        """Train trials as a group and yield each when it ends; if this fails, note why."""
        of = {training: part for part in parts for training in part.trainings}
        try:
            trials = [part.trainings for part in parts]
            for training, result in train_as_one(trials, self.interrupted, self.device):
                self.refusals.fused = True
                if (whole := of[training].take(training, result)) is not None:
                    yield of[training].job, whole
        except Interrupted:
            raise
        except Exception as error:  # the user's networks may raise anything, and vmap has limits
            if self.interrupted():
                raise Interrupted from None
            if not isinstance(error, torch.OutOfMemoryError):
                self.refusals.add(parts[0].job.tricks, one_line(error))
                return
        else:
            return
        yield from self._halves(parts)

    def _halves(self, parts: Sequence[Part]) -> Iterator[tuple[Job, Result]]:
        """Train a group that does not fit in memory as two groups, without the trials that ended."""
        torch.cuda.empty_cache()
        left = [part.anew() for part in parts if not part.ended]
        half = len(left) // 2
        for some in (left[:half], left[half:]):
            if some and len(left) > 1:
                yield from self._together(some)
