"""Metric names that MLflow accepts: `acc@1` becomes `acc_x40_1`.

A character that MLflow refuses is written as `_x`, its code in hexadecimal, and `_`. So is a character
that would make two names equal, and the first character of a name in `OWN`.
"""

import re
import zlib
from collections.abc import Callable, Iterable

OWN = frozenset(
    {
        "objective",
        "seconds",
        "parameters",
        "parameters_per_sample",
        "ranking",
        "best",
        "champion",
        "champion_test",
        "gain",
    }
)
"""Metrics that studies write in addition to the user's."""
MOST_CHARACTERS = 250
_ESCAPED = re.compile(r"_x([0-9a-f]+)_")
_LOOKS_ESCAPED = re.compile(r"_(?=x[0-9a-f]+_)")
_REFUSED = re.compile(r"[^\w.\- /:]")
_SPACES = re.compile(r"^ | $|(?<= ) ")
_SLASHES = re.compile(r"^/|/(?=/|$)")
_DOTS = re.compile(r"(?:^|(?<=/))\.{1,2}(?=/|$)|^\.(?=\.)")


def key_of(name: str) -> str:
    """Return a unique name that MLflow accepts for a user's metric."""
    key = _LOOKS_ESCAPED.sub(_escape, name)
    for pattern in (_REFUSED, _SPACES, _SLASHES, _DOTS):
        key = pattern.sub(_escape, key)
    if key in OWN:
        key = f"{_escaped(key[0])}{key[1:]}"
    if len(key) > MOST_CHARACTERS:  # `name_of` cannot undo this
        key = f"{key[: MOST_CHARACTERS - 9]}-{zlib.crc32(name.encode()):08x}"
    return key


def name_of(key: str) -> str:
    """Return a metric's name from its name in MLflow."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), key)


def _escape(found: re.Match[str]) -> str:
    return _escaped(found[0])


def _escaped(text: str) -> str:
    return "".join(f"_x{ord(character):x}_" for character in text)


class Renamed:
    """Reports, once per metric, that it has another name in MLflow.

    Args:
        show: prints a line.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._known: set[str] = set()

    def note(self, names: Iterable[str]) -> None:
        """Report those of the metric names that are new and changed."""
        new = [name for name in names if name not in self._known]
        self._known.update(new)
        changed = [f"{name!r} is {key!r}" for name in new if (key := key_of(name)) != name]
        if changed:
            self._show(f"MLflow does not accept every metric name; there {', '.join(changed)}")
