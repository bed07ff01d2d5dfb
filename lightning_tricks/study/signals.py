"""Ctrl-C and SIGTERM: noted when they arrive, handled between two steps."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from lightning_tricks.errors import InputError

FINISHING = "finishing the running trials; press Ctrl-C again to put them back and leave at once"


AtTimeout = Literal["finish", "requeue"]


class Signals:
    """What ends a study early: the user's signals, or a time limit.

    Args:
        timeout: seconds after which no further trial begins; None for no limit.
        at_timeout: what to do then with the running trials.

    Raises:
        InputError: if an argument is not valid.
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
        """Whether time is up; the time starts with the first trial."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def interrupting(self) -> bool:
        """Whether to put the running trials back at once."""
        return self.leaving or (self._requeues and self.late)

    @property
    def stopping(self) -> bool:
        """Whether to begin no further trial: after the first Ctrl-C."""
        return self.count >= 1

    @property
    def leaving(self) -> bool:
        """Whether to put the running trials back and leave: after the second Ctrl-C, or SIGTERM."""
        return self.count >= 2

    def leave(self) -> None:
        """Leave at once, as after a second Ctrl-C."""
        self.count = max(self.count, 2)

    @contextmanager
    def handled(self, show: Callable[[str], None]) -> Iterator[None]:
        """Note signals meanwhile; a third Ctrl-C raises at once.

        Args:
            show: prints what the first Ctrl-C does.

        Raises:
            KeyboardInterrupt: at the end, if there was a signal.
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
                # In another thread: this one may be in the middle of writing a line.
                threading.Thread(target=show, args=(FINISHING,)).start()

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            try:
                yield
            except Exception:
                if not self.leaving:  # else leaving without waiting may have caused it
                    raise
            if self.stopping:
                raise KeyboardInterrupt
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
