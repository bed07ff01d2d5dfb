"""A trial from being asked for to its end, and what was decided about it.

What is decided holds, however late a worker is told: epochs after a stop are left out, and so are
those that are reported a second time.
"""

from dataclasses import dataclass, field, replace
from typing import Self

import optuna

from lightning_tricks.search import keys, outcomes
from lightning_tricks.trial.job import Job
from lightning_tricks.trial.result import Epoch, Result, stopped_after

MAX_LOSSES = 3
"""A trial that lost its worker so often is given up."""


@dataclass(eq=False)
class OpenTrial:
    """A trial that was asked for and did not end."""

    trial: optuna.Trial
    job: Job
    reported: int
    """The last epoch that Optuna was told; a trial that goes on makes them again."""
    group: tuple[int, int] | None = None
    """The number of the first trial of its group, and how many were to be drawn for it."""
    losses: int = 0
    """How often its worker was lost."""
    stop_at: int | None = None
    """The epoch after which it was decided that it is to stop."""
    submitted: bool = False
    """Whether a worker had it in this run."""
    stopped: bool = False
    epochs: list[Epoch] = field(default_factory=list)

    @classmethod
    def of(cls, trial: optuna.Trial, job: Job, reported: int) -> Self:
        """Take a trial as Optuna holds it: it may have been under way before."""
        attrs = trial.user_attrs
        group = _group(attrs.get(keys.GROUP))
        losses, stop_at = attrs.get(keys.LOSSES, 0), attrs.get(keys.STOP_AT)
        return cls(trial, job, reported, group, losses, stop_at)

    def join(self, first: int, size: int) -> None:
        """Note of which group it is, so that it is the same one if all has to begin again."""
        self.group = (first, size)
        if size > 1:
            self.trial.set_user_attr(keys.GROUP, list(self.group))

    @property
    def group_size(self) -> int:
        """How many trials were to be drawn for its group."""
        return 1 if self.group is None else self.group[1]

    @property
    def group_end(self) -> int:
        """The number of the last trial of its group."""
        return -1 if self.group is None else sum(self.group) - 1

    @property
    def keeps_weights(self) -> bool:
        """Whether its weights are kept however it ends."""
        return outcomes.keeps_weights(self.trial)

    def is_new(self, epoch: Epoch) -> bool:
        """Tell whether an epoch counts: it was not reported before, and comes before a stop."""
        return not self.stopped and (not self.epochs or epoch.number > self.epochs[-1].number)

    def report(self, epoch: Epoch, epochs: int) -> bool:
        """Tell Optuna of an epoch; return whether the trial is to stop after it.

        Args:
            epoch: which is new.
            epochs: the full budget, at whose end there is nothing to stop.
        """
        if epoch.number > self.reported:
            self.trial.report(epoch.score, epoch.number)
        undecided = epoch.number >= self.reported and self.stop_at is None
        if undecided and self.trial.should_prune() and epoch.number + 1 < epochs:
            self.stop_at = epoch.number
            self.trial.set_user_attr(keys.STOP_AT, epoch.number)
        self.stopped = epoch.number == self.stop_at
        return self.stopped

    def lose_worker(self, reason: str, *, counts: bool = True) -> Result | None:
        """Note a lost worker; return the trial's result if it ends by that, None if it goes on.

        Args:
            reason: for which it was lost.
            counts: whether the trial may be the cause.
        """
        self.losses += counts
        if self.stopped:
            return self.pruned(Result("pruned"))
        if self.losses >= MAX_LOSSES:
            return Result("failed", self.epochs, f"its worker was lost {MAX_LOSSES} times: {reason}")
        self.trial.set_user_attr(keys.LOSSES, self.losses)
        return None

    def pruned(self, result: Result) -> Result:
        """Return the result of a trial that was to stop: with the epochs up to the decision."""
        reason = stopped_after(self.epochs)
        return replace(result, state="pruned", epochs=self.epochs, reason=reason, traceback="")


def _group(held: object) -> tuple[int, int] | None:
    """Read what a trial holds of its group; None if that is nothing of the kind."""
    match held:
        case [int(first), int(size)] if size > 0:
            return first, size
    return None
