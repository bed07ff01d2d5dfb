"""Batch size: the number of samples per step.

The data belong to the task, so this stage acts when a task makes a trial. It has no effect in a
`TricksModule` that you give to a Trainer with your own data.
"""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lightning_tricks.space.domains import Choice
from lightning_tricks.space.trick import Trick

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Batch sizes to search; by default those from a quarter to four times the data's own size."""


class BatchTrick(Trick):
    """The number of samples per step."""

    structural: ClassVar[Literal["", "kind", "fields"]] = "fields"

    def size_of(self, own: int | None) -> int | None:
        """Return the number of samples per step, given the data's own number."""
        return own

    def rate_factor(self, own: int | None) -> float:
        """Return the factor on the learning rate, given the data's own batch size."""
        del own
        return 1.0


class OwnBatches(BatchTrick):
    """The batches of the data, unchanged."""

    neutral: ClassVar[bool] = True
    kind: Literal["own"] = "own"


class SizedBatches(BatchTrick):
    """A step takes `size` samples; an epoch stays an epoch, so larger batches mean fewer steps.

    The best learning rate depends on the size, and a search finds it for each size. `rule` scales it
    instead: the recipe's rate then holds for the data's own size, and is multiplied by size/own
    (`linear`: Goyal et al., 2017, for SGD) or by its square root (`square_root`: Krizhevsky, 2014, for
    Adam). By default the rate stays unchanged. Batches that do not fit in the device's memory are split
    into parts whose gradients are added. The steps stay the same, except for batch-norm statistics.

    When it helps: small batches if you have few samples; large ones if an epoch takes too long.
    """

    searched: ClassVar[bool] = False
    kind: Literal["size"] = "size"
    size: Annotated[int, Choice(*SIZES)] = Field(default=64, ge=1)
    rule: Literal["none", "linear", "square_root"] = "none"

    def size_of(self, own: int | None) -> int | None:
        del own
        return self.size

    def rate_factor(self, own: int | None) -> float:
        if self.rule == "none" or own is None:
            return 1.0
        return self.size / own if self.rule == "linear" else math.sqrt(self.size / own)


Batches = OwnBatches | SizedBatches
