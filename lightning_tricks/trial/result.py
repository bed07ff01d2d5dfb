"""A trial's reports, and its result."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Epoch:
    """What a trial reports at the end of an epoch."""

    number: int
    """Number of the epoch, from 0 on."""
    score: float
    """Score of the trial if it stopped now."""
    metrics: Mapping[str, float]


Report = Callable[[Epoch], bool]
"""Takes an epoch; returns whether to stop. The only link between a trial and its caller."""
State = Literal["complete", "paused", "pruned", "failed"]


@dataclass(frozen=True)
class Result:
    """How a trial ended."""

    state: State
    epochs: list[Epoch] = field(default_factory=list)
    reason: str = ""
    """Why it was pruned or failed, in one line."""
    warning: str = ""
    """Other problems, in one line."""
    traceback: str = ""
    diverged: bool = False
    """Whether it was pruned because a value was not finite."""
    parameters: int = 0
    """Number of trainable parameters."""
    seconds: float = 0.0
    weights: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    """State dict of the module at the end."""

    @property
    def score(self) -> float | None:
        """The score of the weights; None if there is none."""
        return self.epochs[-1].score if self.epochs else None


class Interrupted(Exception):
    """The trial was told to leave at once; it has no result."""


class Paused(Exception):
    """The training reached the epoch after which it pauses; its checkpoint is written."""


def stopped_after(epochs: Sequence[Epoch]) -> str:
    """Return when the pruner stopped a trial, in words."""
    return f"the pruner stopped it after epoch {epochs[-1].number + 1}"
