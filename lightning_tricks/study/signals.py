"""Ctrl-C and SIGTERM, noted when they come and acted on between two steps."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from lightning_tricks.errors import InputError

FINISHING = "finishing the trials under way; Ctrl-C again puts them back and leaves at once"


AtTimeout = Literal["finish", "requeue"]


class Signals:
    """What ends a study before it is complete: the user, while it runs, or the time that it was given.

    Args:
        timeout: seconds after which no further trial begins; None for as long as it takes.
        at_timeout: what becomes of the trials that are under way then.

    Raises:
        InputError: if one of them is not valid.
    """

    def __init__(self, timeout: float | None = None, at_timeout: AtTimeout = "finish") -> None:
        if timeout is not None and not (isinstance(timeout, (int, float)) and timeout > 0):
            raise InputError(f"timeout must be greater than 0 seconds (got {timeout!r})")
        if at_timeout not in ("finish", "requeue"):
            raise InputError(f"at_timeout must be 'finish' or 'requeue' (got {at_timeout!r})")
        self.count = 0
        self._timeout = math.inf if timeout is None else timeout
        self._deadline: float | None = None
        self._requeues = at_timeout == "requeue"

    @property
    def late(self) -> bool:
        """Whether time is up; it begins with the first trial."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def interrupting(self) -> bool:
        """Whether the trials under way are to be put back at once."""
        return self.leaving or (self._requeues and self.late)

    @property
    def stopping(self) -> bool:
        """Begin no further trial: Ctrl-C once."""
        return self.count >= 1

    @property
    def leaving(self) -> bool:
        """Put back the trials under way and leave at once: Ctrl-C twice, or SIGTERM."""
        return self.count >= 2

    def leave(self) -> None:
        """Leave at once, as after Ctrl-C twice."""
        self.count = max(self.count, 2)

    @contextmanager
    def handled(self, show: Callable[[str], None]) -> Iterator[None]:
        """Note signals; a third Ctrl-C leaves wherever it strikes.

        Args:
            show: is told what the first Ctrl-C does.

        Raises:
            KeyboardInterrupt: at the end, if there was one.
        """
        if self._deadline is None:
            self._deadline = time.monotonic() + self._timeout
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: object) -> None:
            del frame
            self.count += 1
            if self.count > 2:
                raise KeyboardInterrupt
            if number == signal.SIGTERM:
                self.count = 2
            elif self.count == 1:
                # From another thread: this one may be in the middle of writing a line.
                threading.Thread(target=show, args=(FINISHING,)).start()

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            try:
                yield
            except Exception:
                if not self.leaving:  # else it is what came of not waiting
                    raise
            if self.stopping:
                raise KeyboardInterrupt
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
