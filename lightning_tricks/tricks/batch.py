"""Batch size: how many samples a step is of.

The data are the task's, so this stage acts where a task makes a trial, and not in a `TricksModule` that
is given to a Trainer with data of its own.
"""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lightning_tricks.space.domains import Choice
from lightning_tricks.space.trick import Trick

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""A study searches those from a quarter to four times the data's own size, unless told otherwise."""


class BatchTrick(Trick):
    """How many samples a step is of."""

    structural: ClassVar[Literal["", "kind", "fields"]] = "fields"

    def size_of(self, own: int | None) -> int | None:
        """Return the number of samples a step, for data with a number of their own."""
        return own

    def rate_factor(self, own: int | None) -> float:
        """Return what the learning rate is multiplied by."""
        del own
        return 1.0


class OwnBatches(BatchTrick):
    """The batches of the data, as they are."""

    neutral: ClassVar[bool] = True
    kind: Literal["own"] = "own"


class SizedBatches(BatchTrick):
    """A step is of `size` samples; an epoch stays an epoch, so larger batches take fewer steps.

    The best learning rate goes with the size, and a search finds it for each size. `rule` moves it along
    instead: the rate of the recipe holds for the data's own size, and is multiplied by size/own
    (`linear`: Goyal et al., 2017, for SGD) or by the root of that (`square_root`: Krizhevsky, 2014, for
    Adam). By default it is left alone. Batches that do not fit a device's memory are taken in parts,
    whose gradients are added up: the same steps, except for the statistics of batch norm.

    When it helps: small batches where data are few; large ones where an epoch takes too long.
    """

    searched: ClassVar[bool] = False
    kind: Literal["size"] = "size"
    size: Annotated[int, Choice(*SIZES)] = Field(64, ge=1)
    rule: Literal["none", "linear", "square_root"] = "none"

    def size_of(self, own: int | None) -> int | None:
        del own
        return self.size

    def rate_factor(self, own: int | None) -> float:
        if self.rule == "none" or own is None:
            return 1.0
        return self.size / own if self.rule == "linear" else math.sqrt(self.size / own)


Batches = OwnBatches | SizedBatches
