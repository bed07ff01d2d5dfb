"""Trains given trials as one where that can be done, and each by itself where it cannot."""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch

from lightning_tricks.errors import one_line
from lightning_tricks.fusion.group import Group
from lightning_tricks.fusion.member import Member
from lightning_tricks.fusion.part import Hear, Part
from lightning_tricks.fusion.refusals import Refusals, device_of
from lightning_tricks.fusion.rehearsal import rehearse_batch
from lightning_tricks.fusion.threads import best_threads
from lightning_tricks.fusion.trainee import Trainee
from lightning_tricks.fusion.unfusible import Unfusible
from lightning_tricks.fusion.width import EVERYTHING, Width, short
from lightning_tricks.task.quiet import quiet
from lightning_tricks.task.task import Task
from lightning_tricks.trial.ddp import RankDied, Ranks
from lightning_tricks.trial.job import Job
from lightning_tricks.trial.repeats import tasks_of
from lightning_tricks.trial.result import Interrupted, Result
from lightning_tricks.tricks.record import Tricks

Tell = Callable[[Job, Result | RankDied], None]
"""Takes a trial, and what became of it; `RankDied` if a process that trained it did."""
Learn = Callable[[Width], Any]
"""Takes what was found of how many trainings are worth being done as one."""


class Fuser:
    """What trains the trials of a task, several at a time.

    Args:
        task: what to train.
        devices: the number of devices that train a trial together.
        interrupted: is asked before each step.

    Raises:
        InputError: if the task has to travel to other processes, and cannot be pickled.
    """

    def __init__(
        self, task: Task, devices: int = 1, interrupted: Callable[[], bool] = lambda: False
    ) -> None:
        self.task, self.interrupted = task, interrupted
        self.ranks = Ranks(task, devices)
        self.refusals = Refusals(task, devices)
        self._told: set[str] = set()
        self._measured = False
        self._tasks: list[Task] = []

    @cached_property
    def device(self) -> torch.device:
        """What trains a group."""
        return device_of(self.task)

    def train(
        self,
        jobs: Sequence[Job],
        hear: Hear,
        tell: Tell,
        width: Width = EVERYTHING,
        learn: Learn = lambda width: None,
    ) -> None:
        """Train trials; tell of each as soon as it ends.

        What cannot be trained as one is trained one by one, and the first result says why.

        Args:
            jobs: the trials, with networks of one structure as far as one knows.
            hear: is told of each epoch.
            tell: is told of each end.
            width: what is known of how many trainings are worth being done as one.
            learn: is told what was found of that.

        Raises:
            Interrupted: soon after `interrupted()` becomes true.
        """
        if width.automatic and not self._measured:
            torch.set_num_threads(best_threads(self.task))
            self._measured = True
        known, width = width, self._grown(width, jobs)
        if width != known:
            learn(width)
        refused = self.refusals.of(jobs[0].tricks)
        size = len(jobs) if refused else max(width.best // self.task.repeats, 1)
        for start in range(0, len(jobs), size):
            self._train(jobs[start : start + size], hear, tell, width)

    def seconds(self, count: int, record: Tricks | None = None) -> tuple[float, str]:
        """Return the seconds that each of some trainings takes, and why they were not done as one."""
        record = self.task.reference() if record is None else record
        fuser = Fuser(short(self.task), interrupted=self.interrupted)
        jobs = [Job(number, record, number) for number in range(count)]
        start = time.perf_counter()
        fuser.train(jobs, lambda job, epoch: False, lambda job, result: None)
        return (time.perf_counter() - start) / count, fuser.refusals.of(record)

    def _grown(self, width: Width, jobs: Sequence[Job]) -> Width:
        """Find out how many trainings of a shape are worth being done as one, if that is not known."""
        wanted = len(jobs) * self.task.repeats
        if width.final or wanted == 1:
            return width
        if not self.refusals.of(jobs[0].tricks):
            grown = width.grown(wanted, lambda count: self.seconds(count, jobs[0].tricks))
            if not grown.unfit:
                return grown
            self.refusals.add(jobs[0].tricks, grown.why)
        return width.refused(self.refusals.of_all) if self.refusals.of_all else width

    def _train(self, jobs: Sequence[Job], hear: Hear, tell: Tell, width: Width) -> None:
        """Train trials as one, or one by one if that is to be or cannot be otherwise."""
        left = {job.number: job for job in jobs}

        def ended(job: Job, result: Result | RankDied) -> None:
            del left[job.number]
            tell(job, result)

        if len(jobs) * self.task.repeats > 1 and width.best > 1 and not self.refusals.of(jobs[0].tricks):
            self._tasks = self._tasks or tasks_of(self.task)
            parts = [Part(job, self._tasks, hear) for job in jobs]
            for fused, whole in self._together(parts):
                ended(fused, whole)
        why = self.refusals.of(jobs[0].tricks) if len(left) > 1 else ""
        which = "" if self.refusals.of_all else " of its shape"
        news = f"trials{which} are trained one by one: {why}" if why and why not in self._told else ""
        for job in list(left.values()):
            result: Result | RankDied = self._alone(job, hear)
            if news and isinstance(result, Result) and why not in self._told:
                trouble = "; ".join(filter(None, (result.trouble, news)))
                result = replace(result, trouble=trouble)
                self._told.add(why)
            ended(job, result)

    def close(self) -> None:
        """End the processes that train."""
        self.ranks.close()

    def _alone(self, job: Job, hear: Hear) -> Result | RankDied:
        report = partial(hear, job)
        try:
            return self.ranks.train(job.tricks, job.seed, report, self.interrupted, job.checkpoint)
        except RankDied as death:
            return death

    def _together(self, parts: Sequence[Part]) -> Iterator[tuple[Job, Result]]:
        """Train trials as one, and yield each as it ends; note why not, if it cannot be done."""
        try:
            with quiet(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="There is a performance drop")
                members = self._members(parts)
                if len(members) > 1:
                    yield from self._run(members)
                    self.refusals.fused = True
        except Interrupted:
            raise
        except Exception as error:  # the networks are the user's, and vmap has limits
            if self.interrupted():
                raise Interrupted from None
            if not isinstance(error, torch.OutOfMemoryError):
                self.refusals.add(parts[0].job.tricks, one_line(error))
                return
        else:
            return
        yield from self._halves(parts)

    def _members(self, parts: Sequence[Part]) -> dict[Member, Part]:
        """Set up the trainings; a trial of which one cannot be ends alone, as it would have."""
        members: dict[Member, Part] = {}
        for part in parts:
            try:
                own = [self._member(trainee) for trainee in part.trainees]
            except Unfusible:
                raise
            except Exception:
                continue
            members |= dict.fromkeys(own, part)
        return members

    def _member(self, trainee: Trainee) -> Member:
        trainee.task.data.move(self.device)
        member = Member(trainee, self.interrupted, self.device)
        rehearse_batch(member)
        return member

    def _run(self, members: dict[Member, Part]) -> Iterator[tuple[Job, Result]]:
        group = Group(list(members), self.interrupted)
        while True:
            for member in group.leave():
                part, result = members[member], member.result(group.errors.get(member))
                if (whole := part.take(member.trainee, result)) is not None:
                    yield part.job, whole
            if not group.members:
                return
            group.run_epoch()

    def _halves(self, parts: Sequence[Part]) -> Iterator[tuple[Job, Result]]:
        """Train in two groups what does not fit the memory as one; what has ended is left out."""
        torch.cuda.empty_cache()
        left = [part.anew() for part in parts if not part.ended]
        half = len(left) // 2
        for some in (left[:half], left[half:]):
            if some and len(left) > 1:
                yield from self._together(some)
