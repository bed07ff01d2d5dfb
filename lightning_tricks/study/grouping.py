"""How many trials of a study are trained as one."""

from collections.abc import Callable

import optuna

from lightning_tricks.fusion.width import MOST
from lightning_tricks.search import outcomes
from lightning_tricks.study.progress import Progress
from lightning_tricks.study.trial_decisions import OpenTrial
from lightning_tricks.task.task import Task
from lightning_tricks.trial.result import Interrupted
from lightning_tricks.workers.placement import Placement

LEARNED_A_MEMBER = 8
"""For each so many finished trials a group of a search has a member more: all of them are drawn before
the outcome of any is known."""


class Grouping:
    """How many trials a group has.

    Args:
        study: which keeps what was measured, for the search would take another way with other groups.
        task: what is trained.
        placement: where.
        progress: is told of what was measured.
        planned: whether a sampler draws the trials, and learns from each: the size of a group is then
            decided with its first trial and kept there, so that a study that died goes on alike. It
            does not follow from what was measured, but for whether anything is gained, so that a study
            is the same when it is run again.
    """

    def __init__(
        self, study: optuna.Study, task: Task, placement: Placement, progress: Progress, *, planned: bool
    ) -> None:
        self.study, self.task, self.planned = study, task, planned
        self.placement, self.progress = placement, progress

    def drawn(self, first: OpenTrial, left: int, learned: int, interrupted: Callable[[], bool]) -> int:
        """Return how many trials are drawn for a group; they may be trained in several parts.

        Args:
            first: its first trial, which takes note of it.
            left: how many a worker has to train yet; others would have none.
            learned: how many trials are finished.
            interrupted: whether to leave.
        """
        if not self.planned:
            return min(left, self.together(interrupted)) if left > 1 else 1
        if first.group is None:
            size = min(left, learned // LEARNED_A_MEMBER, max(self.most // self.task.repeats, 1))
            alone = size == 1 or self.trainings(interrupted) == 1
            first.join(first.job.number, 1 if alone else size)
        return first.group_size

    @property
    def most(self) -> int:
        """How many trainings are planned at a time: not as many as measured, which is luck."""
        width = self.placement.width
        return MOST if width.measures else width.of(self.task)

    def together(self, interrupted: Callable[[], bool]) -> int:
        """Return how many trials are worth being trained as one; each is of so many repeats."""
        return max(self.trainings(interrupted) // self.task.repeats, 1)

    def trainings(self, interrupted: Callable[[], bool]) -> int:
        """Return how many trainings are worth being done as one: what was measured once holds."""
        width = self.placement.width
        if width.found is None:
            width.found = self.study.user_attrs.get(outcomes.FUSE)
        if width.found is None:
            try:
                found = width.of(self.task, self.placement.processes, interrupted)
            except Interrupted:
                return 1  # whoever trains is told to leave as well
            self.study.set_user_attr(outcomes.FUSE, found)
            times = "one by one" if found == 1 else f"up to {found} at a time, as one"
            self.progress.print(f"trainings are done {times}: {width.why}")
        return width.of(self.task)
