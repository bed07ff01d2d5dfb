"""Growth: from this process to several workers, once the remaining work is worth their start."""

import statistics
from dataclasses import replace

from lightning_tricks.errors import InputError
from lightning_tricks.study.session import Session
from lightning_tricks.workers.base import Workers

FEWEST_MEASURED = 2
"""Minimum number of trained trials. The first one is slow, because it loads and compiles."""


class Growth:
    """Decides when a study moves to several workers; it does so once at most.

    Args:
        session: the open session of the study.
    """

    def __init__(self, session: Session) -> None:
        self.task, self.placement, self.progress = session.task, session.placement, session.progress
        self.trained: list[float] = []
        """Seconds of each trial trained in this run."""

    def several(self, left: int) -> Workers | None:
        """Return several workers if they are worth their start now, else None.

        Args:
            left: number of trials left.
        """
        if len(self.trained) < FEWEST_MEASURED or left < 2:
            return None
        seconds = left * statistics.median_low(self.trained)
        count = self.placement.worthwhile(self.task, left, seconds)
        if count == 1:
            return None
        placement, self.placement = self.placement, replace(self.placement, workers="inline")
        self.progress.print(f"about {seconds:.0f} s of work left: going on with {count} workers")
        try:
            return placement.create_several(self.task, count, self.progress.warn)
        except InputError as error:
            self.progress.warn(f"staying in this process: {error}")
            return None
