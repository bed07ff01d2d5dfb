"""Trains given trials as one where that can be done, and each by itself where it cannot."""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch

from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.errors import one_line
from lightning_tricks.fusion.group import Group
from lightning_tricks.fusion.member import Member
from lightning_tricks.fusion.part import Hear, Part
from lightning_tricks.fusion.rehearsal import rehearse_batch
from lightning_tricks.fusion.trainee import Trainee
from lightning_tricks.fusion.unfusible import Unfusible
from lightning_tricks.fusion.width import EVERYTHING, Width, short
from lightning_tricks.task.quiet import quiet
from lightning_tricks.task.task import Task
from lightning_tricks.trial.ddp import RankDied, Ranks
from lightning_tricks.trial.job import Job
from lightning_tricks.trial.repeats import tasks_of
from lightning_tricks.trial.result import Interrupted, Result
from lightning_tricks.trial.train import trainer_of

_OF_DATA = (
    "train_dataloader",
    "val_dataloader",
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
)
"""What of InMemoryData a group does for it."""
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
        self.refusal = next(self._refusals(devices), "")
        """Why trials are trained one by one; empty as long as they are not."""
        self._told = False
        self._tasks: list[Task] = []

    @cached_property
    def device(self) -> torch.device:
        """What trains a group."""
        return device_of(self.task)

    def _refusals(self, devices: int) -> Iterator[str]:
        """Say why trials are trained one by one."""
        if devices > 1:
            yield "several devices train a trial"
        if not isinstance(self.task.data, InMemoryData):
            yield "the data are not InMemoryData"
        for name in _OF_DATA:
            if getattr(type(self.task.data), name) is not getattr(InMemoryData, name):
                yield f"the data have their own {name}"
        if others := sorted(set(self.task.trainer) - {"accelerator"}):
            yield f"the trainer sets {', '.join(others)}"
        if self.task.callbacks or self.task.logger is not None:
            yield "the task has callbacks or a logger"
        if self.task.compiled:
            yield "the network is compiled"
        if self.task.channels_last:
            yield "images are channels_last"
        try:
            device = self.device
        except Exception as error:  # it is not there: a trial that is trained alone says so
            yield one_line(error)
        else:
            if device.type not in ("cpu", "cuda"):
                yield f"the device is {device}"

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
        known, width = width, self._grown(width, len(jobs) * self.task.repeats)
        if width != known:
            learn(width)
        size = max(width.best // self.task.repeats, 1)
        for start in range(0, len(jobs), size):
            self._train(jobs[start : start + size], hear, tell, width)

    def seconds(self, count: int) -> tuple[float, str]:
        """Return the seconds that each of some trainings takes, and why they were not done as one."""
        fuser = Fuser(short(self.task), interrupted=self.interrupted)
        jobs = [Job(number, self.task.reference(), number) for number in range(count)]
        start = time.perf_counter()
        fuser.train(jobs, lambda job, epoch: False, lambda job, result: None)
        return (time.perf_counter() - start) / count, fuser.refusal

    def _grown(self, width: Width, wanted: int) -> Width:
        """Find out whether so many trainings are worth being done as one, if that is not known."""
        if width.final or wanted == 1:
            return width
        return width.refused(self.refusal) if self.refusal else width.grown(wanted, self.seconds)

    def _train(self, jobs: Sequence[Job], hear: Hear, tell: Tell, width: Width) -> None:
        """Train trials as one, or one by one if that is to be or cannot be otherwise."""
        left = {job.number: job for job in jobs}

        def ended(job: Job, result: Result | RankDied) -> None:
            del left[job.number]
            tell(job, result)

        if len(jobs) * self.task.repeats > 1 and width.best > 1 and not self.refusal:
            self._tasks = self._tasks or tasks_of(self.task)
            parts = [Part(job, self._tasks, hear) for job in jobs]
            for fused, whole in self._together(parts):
                ended(fused, whole)
        news = f"trials are trained one by one: {self.refusal}" if len(left) > 1 else ""
        for job in list(left.values()):
            result: Result | RankDied = self._alone(job, hear)
            if news and isinstance(result, Result) and not self._told:
                trouble = "; ".join(filter(None, (result.trouble, news)))
                result, self._told = replace(result, trouble=trouble), True
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
        except Interrupted:
            raise
        except Exception as error:  # the networks are the user's, and vmap has limits
            if self.interrupted():
                raise Interrupted from None
            if not isinstance(error, torch.OutOfMemoryError):
                self.refusal = one_line(error)
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


def device_of(task: Task) -> torch.device:
    """Return the device that Lightning trains a trial of a task on.

    Raises:
        MisconfigurationException: if it is not there.
    """
    with quiet():
        return trainer_of(task).strategy.root_device
