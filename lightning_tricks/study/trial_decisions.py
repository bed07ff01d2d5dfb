"""An open trial, from `ask` to its end, and the decisions about it.

A decision holds even if the worker learns of it late: epochs after a stop are ignored, and so are epochs
that are reported a second time.
"""

from dataclasses import dataclass, field, replace
from typing import Self

import optuna

from lightning_tricks.search import keys, outcomes
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.studies import failing
from lightning_tricks.trial.job import Job
from lightning_tricks.trial.result import Epoch, Result, stopped_after

MAX_LOSSES = 3
"""Number of lost workers after which a trial fails."""


@dataclass(eq=False)
class OpenTrial:
    """A trial that was asked for and has not ended."""

    trial: optuna.Trial
    job: Job
    reported: int
    """Last epoch reported to Optuna; a resumed trial may train epochs up to it again."""
    group: tuple[int, int] | None = None
    """Number of the first trial of its group, and the group's planned size."""
    losses: int = 0
    """Number of times it lost its worker."""
    stop_at: int | None = None
    """Epoch after which the trial stops; None if not decided."""
    submitted: bool = False
    """Whether it was given to a worker in this run."""
    stopped: bool = False
    epochs: list[Epoch] = field(default_factory=list)
    resumed: int = 0
    """Number of these that it had before it paused."""

    @classmethod
    def of(cls, trial: optuna.Trial, job: Job, reported: int) -> Self:
        """Make an open trial from Optuna's; it may have been started in an earlier run."""
        attrs = trial.user_attrs
        group = _group(attrs.get(keys.GROUP))
        losses, stop_at = attrs.get(keys.LOSSES, 0), attrs.get(keys.STOP_AT)
        outcome = Outcome.read(trial)  # of a trial that paused
        epochs = [] if outcome is None else outcome.history
        return cls(trial, job, reported, group, losses, stop_at, epochs=epochs, resumed=len(epochs))

    def join(self, first: int, size: int) -> None:
        """Store its group, so that a resumed study forms the same group."""
        self.group = (first, size)
        if size > 1:
            self.trial.set_user_attr(keys.GROUP, list(self.group))

    @property
    def group_size(self) -> int:
        """Planned number of trials in its group."""
        return 1 if self.group is None else self.group[1]

    @property
    def group_end(self) -> int:
        """Number of the last trial of its group; -1 without a group."""
        return -1 if self.group is None else sum(self.group) - 1

    @property
    def keeps_weights(self) -> bool:
        """Whether its weights are always kept."""
        return outcomes.keeps_weights(self.trial)

    def is_new(self, epoch: Epoch) -> bool:
        """Return whether an epoch counts: it was not reported before, and is not after a stop."""
        return not self.stopped and (not self.epochs or epoch.number > self.epochs[-1].number)

    def report(self, epoch: Epoch, epochs: int, *, prune: bool) -> bool:
        """Report an epoch to Optuna; return whether the trial must stop after it.

        Args:
            epoch: the new epoch.
            epochs: the full budget; the last epoch never stops the trial.
            prune: whether the pruner may stop it.
        """
        if epoch.number > self.reported:
            self.trial.report(epoch.score, epoch.number)
        undecided = prune and epoch.number >= self.reported and self.stop_at is None
        if undecided and self._should_stop() and epoch.number + 1 < epochs:
            self.stop_at = epoch.number
            self.trial.set_user_attr(keys.STOP_AT, epoch.number)
        self.stopped = epoch.number == self.stop_at
        return self.stopped

    def _should_stop(self) -> bool:
        with failing("pruner", self.trial.study.pruner):
            return self.trial.should_prune()

    def lose_worker(self, reason: str, *, counts: bool = True) -> Result | None:
        """Note a lost worker; return the trial's result if this ends it, None if it goes on.

        Args:
            reason: why the worker was lost.
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
        """Return the result of a stopped trial, with the epochs up to the stop."""
        reason = stopped_after(self.epochs)
        return replace(result, state="pruned", epochs=self.epochs, reason=reason, traceback="")


def _group(held: object) -> tuple[int, int] | None:
    """Read a trial's group from its attribute; None if the attribute is missing or invalid."""
    match held:
        case [int(first), int(size)] if size > 0:
            return first, size
    return None
