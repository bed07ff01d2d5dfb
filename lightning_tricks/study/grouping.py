"""How many trials of a study are trained as one."""

from dataclasses import asdict

import optuna

from lightning_tricks.fusion.width import MOST, Width
from lightning_tricks.search import outcomes
from lightning_tricks.study.progress import Progress
from lightning_tricks.study.trial_decisions import OpenTrial
from lightning_tricks.task.task import Task

LEARNED_A_MEMBER = 8
"""For each so many finished trials a group of a search has a member more: all of them are drawn before
the outcome of any is known."""


class Grouping:
    """How many trials a group has.

    Args:
        study: which keeps what was measured, for the search would take another way with other groups.
        task: what is trained.
        width: what the user says of how many trainings are done at a time.
        progress: is told of what was measured.
        planned: whether a sampler draws the trials, and learns from each: the size of a group is then
            decided with its first trial and kept there, so that a study that died goes on alike. It
            does not follow from what was measured, but for whether anything is gained, so that a study
            is the same when it is run again.
    """

    def __init__(
        self, study: optuna.Study, task: Task, width: Width, progress: Progress, *, planned: bool
    ) -> None:
        self.study, self.task, self.progress, self.planned = study, task, progress, planned
        self.most = max((width.best if width.final else MOST) // task.repeats, 1)
        """So many trials are planned at a time, at most: not as many as measured, which is luck."""
        held = None if width.final else study.user_attrs.get(outcomes.FUSE)
        self.width = width if held is None else Width(**held)
        """What is known of how many trainings are worth being done as one."""

    def drawn(self, first: OpenTrial, left: int, learned: int) -> int:
        """Return how many trials are drawn for a group; they may be trained in several parts.

        Args:
            first: its first trial, which takes note of it.
            left: how many a worker has to train yet; others would have none.
            learned: how many trials are finished.
        """
        if not self.planned:
            return min(left, self.together)
        if first.group is None:
            size = min(left, learned // LEARNED_A_MEMBER, self.most)
            first.join(first.job.number, 1 if size < 2 or self.width.alone else size)
        return first.group_size

    @property
    def together(self) -> int:
        """How many trials a worker is given at a time; what is more than it can do as one, waits.

        As long as nothing was measured, few are enough to find out whether anything is gained.
        """
        if not self.width.final and self.width.seconds is not None:
            return self.most
        trainings = self.width.best if self.width.final else 2
        return max(trainings // self.task.repeats, 1)

    def learn(self, width: Width) -> None:
        """Take in what a worker found; what was found to be the most holds."""
        known = self.width
        if known.final or not (width.final or width.best > known.best):
            return
        self.width = width
        self.study.set_user_attr(outcomes.FUSE, asdict(width))
        if width.alone:
            self.progress.print(f"trainings are done one by one: {width.why}")
        elif known.best == 1:
            self.progress.print("trainings are done several at a time, as one")
