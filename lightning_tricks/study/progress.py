"""Progress while a study runs: a live line on a terminal, plain lines elsewhere."""

import math
import statistics
import sys
from collections.abc import Sequence
from typing import Self, TextIO

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as LiveLine

from lightning_tricks.redaction import redacted
from lightning_tricks.search.outcomes import counted

TELLING = 3
"""How many trials must have been trained before it is told how long the others will take: the first
one pays for what is loaded and compiled once."""
BAR_WIDTH = 12
"""So that all fits on a terminal of 80 columns."""


class Progress:
    """Tell how far a study is.

    Args:
        total: the number of trials to be finished.
        quiet: whether to tell nothing but warnings.
        stream: where to tell it; by default the standard error.
    """

    def __init__(
        self,
        total: int,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self.total, self.workers = total, 1
        """Of trials to be finished; and how many are trained at the same time."""
        self.done = self.pruned = self.failed = 0
        self._trained: list[float] = []
        """The seconds of each trial that was trained in this run."""
        self._live: LiveLine | None = None

    def start(self, trials: Sequence[FrozenTrial]) -> None:
        """Count the trials that are finished already, and show the live line."""
        self.done = counted(trials)
        self.pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
        self.failed = sum(trial.state == TrialState.FAIL for trial in trials)
        if self.stream.isatty() and not self.quiet:
            self._live = LiveLine(
                BarColumn(bar_width=BAR_WIDTH),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}", markup=False),
                console=Console(file=self.stream),
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.add_task("", total=self.total, completed=self.done)
            self._live.start()

    def start_stage(self, name: str, total: int, trials: Sequence[FrozenTrial]) -> None:
        """Begin to count anew, for what follows the search.

        Args:
            name: of the stage.
            total: trainings that it has at most.
            trials: that are finished already.
        """
        if self._live is not None:
            self._live.stop()
        self.total = total
        self._trained = []
        self.print(f"{name}: at most {total} trainings, of which {len(trials)} are there already")
        self.start(trials)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        if self._live is not None:
            self._live.stop()

    def print(self, line: str, style: str = "") -> None:
        """Print a line, without passwords, above the live line where there is one."""
        line = redacted(line)
        if self._live is not None:
            self._live.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
        elif not self.quiet:
            self.stream.write(f"{line}\n")
            self.stream.flush()

    def warn(self, line: str) -> None:
        """Print a warning, also where the rest is quiet."""
        quiet, self.quiet = self.quiet, False
        self.print(f"warning: {line}", "yellow")
        self.quiet = quiet

    def trial_ended(self, line: str, state: str, best: str, seconds: float | None = None) -> None:
        """Count a trial that ended.

        Args:
            line: what is told about it where there is no live line.
            state: Optuna's name of its state.
            best: the best score so far, in words; empty where it means nothing.
            seconds: that it was trained for; None if it was not trained, and does not count.
        """
        if seconds is not None:
            self._trained.append(seconds)
            self.done += 1
        self.pruned += state == "PRUNED"
        self.failed += state == "FAIL"
        counts = f"{self.pruned} pruned" + (f", {self.failed} failed" if self.failed else "")
        news = f"{counts}{f', best {best}' if best else ''}{self._left()}"
        if self._live is not None:
            (task,) = self._live.task_ids
            self._live.update(task, completed=self.done, description=news, refresh=True)
        else:
            self.print(f"{self.done}/{self.total}  {line}  ({news})")

    def _left(self) -> str:
        left = self.total - self.done
        if left <= 0 or len(self._trained) < TELLING:
            return ""
        rounds = math.ceil(left / self.workers)
        return f", about {duration(rounds * statistics.median(self._trained))} left"


def duration(seconds: float) -> str:
    """Write a duration in the unit that suits it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
