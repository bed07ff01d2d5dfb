"""A job: one trial to train, as it is sent to a worker."""

from dataclasses import dataclass
from pathlib import Path

from lightning_tricks.tricks.recipe import Tricks


@dataclass(frozen=True)
class Job:
    """One trial to train."""

    number: int
    tricks: Tricks
    seed: int
    checkpoint: Path | None = None
    """Path of its checkpoint, to write and to resume from."""
    pause_after: int | None = None
    """Number of the epoch after which it pauses; None to train to the end."""

    @property
    def contends(self) -> bool:
        """Whether it is trained to the end, and so as often as the task asks, not once."""
        return self.pause_after is None
