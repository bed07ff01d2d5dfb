"""Ctrl-C and SIGTERM, noted when they come and acted on between two steps."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FINISHING = "finishing the trials under way; Ctrl-C again puts them back and leaves at once"


class Signals:
    """What the user asked for while a study runs."""

    def __init__(self) -> None:
        self.count = 0

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
