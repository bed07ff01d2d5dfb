"""A budget: the time or the number of epochs that a whole study may take."""

import re
from dataclasses import dataclass
from typing import Literal, Self

from lightning_tricks.errors import InputError, quoted

SECONDS = {"d": 86_400, "h": 3_600, "min": 60, "m": 60, "s": 1}
"""Units of time, the largest first."""
MOST = 10**9
"""The largest number of seconds or epochs."""
_PART = rf"(\d+(?:\.\d+)?)\s*({'|'.join(SECONDS)})"


@dataclass(frozen=True)
class Budget:
    """What a search, its verdict and its ablation may take together.

    Example:
        >>> str(Budget.read("90 min")), str(Budget.read("3000 epochs"))
        ('1h30m', '3000 epochs')
    """

    amount: float
    unit: Literal["seconds", "epochs"]

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a budget such as `2h`, `1h30m`, `45 min` or `3000 epochs`.

        Raises:
            InputError: if it is neither a time nor a number of epochs, or is not above 0.
        """
        plain = str(text).strip().lower()
        if found := re.fullmatch(r"(\d{1,10})\s*epochs?", plain):
            budget = cls(float(found[1]), "epochs")
        elif re.fullmatch(rf"(?:{_PART}\s*)+", plain):
            parts = re.findall(_PART, plain)
            budget = cls(sum(float(number) * SECONDS[name] for number, name in parts), "seconds")
        else:
            budget = cls(0.0, "seconds")
        if not 0 < budget.amount <= MOST:
            raise InputError(
                f"a budget must be a time or a number of epochs above 0, such as 2h, 1h30m, 45min or "
                f"'3000 epochs' (got {quoted(str(text))})"
            )
        return budget

    def __str__(self) -> str:
        if self.unit == "epochs":
            return f"{self.amount:.0f} epochs"
        left, parts = self.amount, []
        for name in ("d", "h", "m", "s"):
            count, left = divmod(left, SECONDS[name])
            count += left if name == "s" else 0
            parts += [f"{count:g}{name}"] if count else []
        return "".join(parts)
