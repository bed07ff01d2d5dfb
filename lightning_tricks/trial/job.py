"""One trial to be trained, as it travels to whoever trains it."""

from dataclasses import dataclass
from pathlib import Path

from lightning_tricks.tricks.recipe import Tricks


@dataclass(frozen=True)
class Job:
    """One trial to be trained."""

    number: int
    tricks: Tricks
    seed: int
    checkpoint: Path | None = None
    """Where its checkpoints go, and from where it goes on."""
