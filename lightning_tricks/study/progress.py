"""Progress while a study runs: a live line on a terminal, plain lines elsewhere."""

import math
import sys
from collections.abc import Sequence
from typing import Self, TextIO

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as LiveLine
from rich.table import Column

from lightning_tricks.redaction import redacted
from lightning_tricks.report.facts import duration
from lightning_tricks.search.outcomes import Outcome, counted

TELLING = 3
"""Trained trials before the remaining time is shown: the first one is slow, because it loads and
compiles."""
BAR_WIDTH = 12
"""Width of the bar, in columns."""
WIDE = 100
"""Least width of a terminal that has room for the bar."""


class Progress:
    """Show how far a study is.

    Args:
        total: number of trials to finish; None if it is not known yet.
        quiet: whether to show warnings only.
        stream: the output stream; by default standard error.
    """

    def __init__(
        self,
        total: int | None,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self.total: int | None = total
        """Number of trials to finish; None if it is not known yet."""
        self.workers = 1
        self.stage = "search"
        self.done = self.pruned = self.failed = 0
        """Number of trials tried, and of those that are pruned and failed."""
        self.paused: dict[int, float] = {}
        """Seconds of each paused trial, by its number; it was counted when it paused."""
        self._trained: list[float] = []
        """Seconds of each training in this run; a trial that paused has several."""
        self._before = 0
        """Number of trials tried in earlier runs."""
        self._live: LiveLine | None = None

    def start(self, trials: Sequence[FrozenTrial], paused: Sequence[FrozenTrial] = ()) -> None:
        """Count the finished and the paused trials, and show the live line."""
        outcomes = {trial.number: Outcome.read(trial) for trial in paused}
        self.paused = {number: outcome.seconds for number, outcome in outcomes.items() if outcome}
        self.done = counted(trials) + len(paused)
        self._before = self.done
        self.pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
        self.failed = sum(trial.state == TrialState.FAIL for trial in trials)
        if self.stream.isatty() and not self.quiet:
            console = Console(file=self.stream)
            rest = Column(no_wrap=True, overflow="ellipsis", ratio=1)
            self._live = LiveLine(
                TextColumn("{task.fields[stage]}", markup=False),
                *([BarColumn(bar_width=BAR_WIDTH)] if console.width >= WIDE else []),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}", markup=False, table_column=rest),
                console=console,
                expand=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.add_task("", total=self.total, completed=self.done, stage=self.stage)
            self._live.start()

    def start_stage(self, name: str, total: int, trials: Sequence[FrozenTrial]) -> None:
        """Restart the count for a stage after the search.

        Args:
            name: the stage's name.
            total: its maximum number of trainings.
            trials: its finished trials.
        """
        if self._live is not None:
            self._live.stop()
        self.stage, self.total = name, total
        self._trained = []
        self.print(f"{name}: at most {total} trainings, {len(trials)} of them already done")
        self.start(trials)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        if self._live is not None:
            self._live.stop()

    def print(self, line: str, style: str = "") -> None:
        """Print a line without passwords, above the live line if there is one."""
        line = redacted(line)
        if self._live is not None:
            self._live.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
        elif not self.quiet:
            self.stream.write(f"{line}\n")
            self.stream.flush()

    def warn(self, line: str) -> None:
        """Print a warning, even if quiet."""
        quiet, self.quiet = self.quiet, False
        self.print(f"warning: {line}", "yellow")
        self.quiet = quiet

    def trial_ended(
        self,
        line: str,
        state: str,
        best: str,
        seconds: float | None = None,
        *,
        again: bool = False,
    ) -> None:
        """Count a trial that ended or paused; the caller keeps `paused` up to date.

        Args:
            line: its description, printed if there is no live line and it is not empty.
            state: its state's name in Optuna.
            best: the best score so far, in words; empty if not meaningful.
            seconds: its training time; None if it was not trained and does not count.
            again: whether it was counted before, when it paused.
        """
        if seconds is not None:
            self._trained.append(seconds)
            self.done += not again
        if self.total is not None:  # a verdict of other finalists has earlier ones that count, too
            self.total = max(self.total, self.done)
        self.pruned += state == "PRUNED"
        self.failed += state == "FAIL"
        numbers = {"paused": len(self.paused), "pruned": self.pruned, "failed": self.failed}
        counts = [f"{n} {what}" for what, n in numbers.items() if n]
        news = ", ".join(filter(None, (*counts, best and f"best {best}", self._left())))
        if self._live is not None:
            (task,) = self._live.task_ids
            self._live.update(
                task, total=self.total, completed=self.done, description=news, refresh=True
            )
        elif line:
            self.print(f"{self.done}/{self.total or '?'}  {line}{news and f'  ({news})'}")

    def _left(self) -> str:
        left = (self.total or 0) - self.done
        if left <= 0 or len(self._trained) < TELLING:
            return ""
        rounds, tried = math.ceil(left / self.workers), self.done - self._before - 1
        seconds = sum(self._trained[1:]) / max(tried, 1)
        return f"{duration(rounds * seconds)} left"
