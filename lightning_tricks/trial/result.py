"""What a trial reports, and how it ends."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Epoch:
    """What a trial reports at the end of an epoch."""

    number: int
    """From 0 on."""
    score: float
    """The score that the trial would have if it stopped now."""
    metrics: Mapping[str, float]


Report = Callable[[Epoch], bool]
"""Takes an epoch; returns whether to stop. The one seam between a trial and whoever runs it."""
State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Result:
    """How a trial ended."""

    state: State
    epochs: list[Epoch] = field(default_factory=list)
    reason: str = ""
    """Why it was pruned or failed, in a line."""
    warning: str = ""
    """What went wrong beside, in a line."""
    traceback: str = ""
    diverged: bool = False
    """Whether it was pruned because something was not finite."""
    parameters: int = 0
    """The number of trainable parameters."""
    seconds: float = 0.0
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    """The state of the module, as it is scored."""

    @property
    def score(self) -> float | None:
        """The score of the weights; None if there is none."""
        return self.epochs[-1].score if self.epochs else None


class Interrupted(Exception):
    """The trial was told to leave at once; it has no result."""


def stopped_after(epochs: Sequence[Epoch]) -> str:
    """Say in words when the pruner stopped a trial."""
    return f"the pruner stopped it after epoch {epochs[-1].number + 1}"
