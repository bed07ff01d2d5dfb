"""The group size of a study: how many trials are trained as one program."""

from dataclasses import asdict

import optuna

from lightning_tricks.search import keys
from lightning_tricks.study.progress import Progress
from lightning_tricks.study.trial_decisions import OpenTrial
from lightning_tricks.task.task import Task
from lightning_tricks.training.group_size import MOST, GroupSize
from lightning_tricks.training.refusals import of_task

LEARNED_A_MEMBER = 8
"""Finished trials per group member: a search's group may grow by one for each of these. All members are
drawn before any outcome is known, so a search that has learned little should draw few."""


class Grouping:
    """Decides the group size.

    Args:
        study: the study, which stores the measured group size: other groups would change the search.
        task: the study's task.
        group_size: the group size that the user asked for.
        progress: prints what was measured.
        devices: number of devices that train one trial together.
        planned: whether a sampler draws the trials and learns from them. The group size is then fixed
            and stored with the group's first trial, so a resumed study continues in the same way. It
            ignores measured times, except for whether groups help at all, so a second run of the
            study gives the same trials.
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
        """Maximum number of trials in a planned group; not the fastest size measured, which varies."""
        held = None if group_size.final else study.user_attrs.get(keys.FUSE)
        self.group_size = group_size if held is None else GroupSize(**held)
        """The group size known so far."""
        self._refusal = of_task(task, devices)

    def drawn(self, first: OpenTrial, left: int, learned: int) -> int:
        """Return how many trials to draw for a group; they may be trained in several parts.

        Args:
            first: the group's first trial, which stores the size.
            left: a worker's share of the remaining trials, and the upper limit.
            learned: number of finished trials.
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
        """Before the first group, check whether the task allows groups; a worker would say so later."""
        if size > 1 and self._refusal and not self.group_size.alone:
            self._take(self.group_size.refused(self._refusal))

    @property
    def together(self) -> int:
        """Number of trials that a worker gets at a time; it trains them in several parts if needed.

        Before the first measurement, two trainings are enough to find out whether groups help.
        """
        if not self.group_size.final and self.group_size.seconds is not None:
            return self.most
        trainings = self.group_size.best if self.group_size.final else 2
        return max(trainings // self.task.repeats, 1)

    def learn(self, group_size: GroupSize) -> None:
        """Store a worker's measured group size, unless the known one is final or at least as large."""
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
            self.progress.print("several trainings are done at a time, as one program")
