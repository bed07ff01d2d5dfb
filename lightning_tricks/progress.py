"""Progress while a study runs: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TextIO

from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm


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
        self.total = total
        self.done = self.pruned = self.failed = self._began = 0
        self._start = time.monotonic()
        self._bar: tqdm[Any] | None = None

    def begin(self, trials: Sequence[FrozenTrial]) -> None:
        """Count the trials that are finished already, and show the bar."""
        self.done = self._began = len(trials)
        self.pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
        self.failed = sum(trial.state == TrialState.FAIL for trial in trials)
        self._start = time.monotonic()
        if self.stream.isatty() and not self.quiet:
            self._bar = tqdm(
                total=self.total,
                initial=self.done,
                file=self.stream,
                unit="trial",
                dynamic_ncols=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.write(line, file=self.stream)
        elif not self.quiet:
            self.stream.write(f"{line}\n")
            self.stream.flush()

    def warn(self, line: str) -> None:
        """Print a warning, also where the rest is quiet."""
        quiet, self.quiet = self.quiet, False
        self.say(f"warning: {line}")
        self.quiet = quiet

    def finish(self, line: str, state: str, best: str) -> None:
        """Count a trial that ended.

        Args:
            line: what is told about it where there is no bar.
            state: Optuna's name of its state.
            best: the best score so far, in words.
        """
        self.done += 1
        self.pruned += state == "PRUNED"
        self.failed += state == "FAIL"
        counts = f"{self.pruned} pruned" + (f", {self.failed} failed" if self.failed else "")
        if self._bar is not None:
            self._bar.set_postfix_str(f"{counts}, best {best}")
            self._bar.update()
        else:
            self.say(f"{self.done}/{self.total}  {line}  ({counts}, best {best}{self._left()})")

    def _left(self) -> str:
        here = self.done - self._began
        seconds = (time.monotonic() - self._start) / here * (self.total - self.done)
        return f", about {seconds:.0f} s left" if self.done < self.total else ""
