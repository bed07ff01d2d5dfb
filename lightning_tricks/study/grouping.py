"""How many trials of a study are trained as one."""

from dataclasses import asdict

import optuna

from lightning_tricks.search import keys
from lightning_tricks.study.progress import Progress
from lightning_tricks.study.trial_decisions import OpenTrial
from lightning_tricks.task.task import Task
from lightning_tricks.training.group_size import MOST, GroupSize
from lightning_tricks.training.refusals import of_task

LEARNED_A_MEMBER = 8
"""For each so many finished trials a group of a search has a member more: all of them are drawn before
the outcome of any is known."""


class Grouping:
    """How many trials a group has.

    Args:
        study: which keeps what was measured, for the search would take another way with other groups.
        task: what is trained.
        group_size: what the user says of how many trainings are done at a time.
        progress: is told of what was measured.
        devices: number of devices that train a trial together.
        planned: whether a sampler draws the trials, and learns from each: the size of a group is then
            decided with its first trial and kept there, so that a study that died goes on alike. It
            does not follow from what was measured, but for whether anything is gained, so that a study
            is the same when it is run again.
    """

    def __init__(
        self,
        study: optuna.Study,
        task: Task,
        group_size: GroupSize,
        progress: Progress,
        devices: int,
        *,
        planned: bool,
    ) -> None:
        self.study, self.task, self.progress, self.planned = study, task, progress, planned
        self.most = max((group_size.best if group_size.final else MOST) // task.repeats, 1)
        """So many trials are planned at a time, at most: not as many as measured, which is luck."""
        held = None if group_size.final else study.user_attrs.get(keys.FUSE)
        self.group_size = group_size if held is None else GroupSize(**held)
        """What is known of how many trainings are worth being done as one."""
        self._refusal = of_task(task, devices)

    def drawn(self, first: OpenTrial, left: int, learned: int) -> int:
        """Return how many trials are drawn for a group; they may be trained in several parts.

        Args:
            first: its first trial, which takes note of it.
            left: how many a worker has to train yet; others would have none.
            learned: how many trials are finished.
        """
        if not self.planned:
            self._look(left)
            return min(left, self.together)
        if first.group is None:
            size = min(left, learned // LEARNED_A_MEMBER, self.most)
            self._look(size)
            first.join(first.job.number, 1 if size < 2 or self.group_size.alone else size)
        return first.group_size

    def _look(self, size: int) -> None:
        """Before a first group, find out what the task says: who trains would, but at any time."""
        if size > 1 and self._refusal and not self.group_size.alone:
            self._take(self.group_size.refused(self._refusal))

    @property
    def together(self) -> int:
        """How many trials a worker is given at a time; what is more than it can do as one, waits.

        As long as nothing was measured, few are enough to find out whether anything is gained.
        """
        if not self.group_size.final and self.group_size.seconds is not None:
            return self.most
        trainings = self.group_size.best if self.group_size.final else 2
        return max(trainings // self.task.repeats, 1)

    def learn(self, group_size: GroupSize) -> None:
        """Take in what a worker found; what was found to be the most holds."""
        known = self.group_size
        if known.final or not (group_size.final or group_size.best > known.best):
            return
        self._take(group_size)

    def _take(self, group_size: GroupSize) -> None:
        known, self.group_size = self.group_size, group_size
        self.study.set_user_attr(keys.FUSE, asdict(group_size))
        if group_size.alone:
            self.progress.print(f"trainings are done one by one: {group_size.why}")
        elif known.best == 1:
            self.progress.print("trainings are done several at a time, as one")
