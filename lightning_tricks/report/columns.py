"""Tables in aligned columns, which fit the terminal."""

import re
import shutil
import textwrap
from collections.abc import Sequence

from rich.box import Box
from rich.table import Table
from rich.text import Text

WIDEST = 100
"""Width of a table on a terminal that is wider, in characters."""
NARROWEST = 60
_GAP = 2
_NO_BREAK = "\u00a0"
_RULE = Box("    \n    \n -- \n    \n    \n    \n    \n    \n")


def room(width: int | None = None) -> int:
    """Return how wide a table may be, in characters; without a width that of the terminal."""
    terminal = shutil.get_terminal_size((WIDEST, 24)).columns
    return max(width or min(terminal, WIDEST), NARROWEST)


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    """Return a table in aligned columns that is at most as wide as said."""
    widths = _fit(list(zip(header, *rows, strict=True)), width)
    table = Table(box=_RULE, padding=(0, _GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    for name, wide in zip(header, widths, strict=True):
        table.add_column(Text(_wrap(name, wide)), width=wide, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_wrap(cell, wide)) for cell, wide in zip(row, widths, strict=True)))
    return table


def _fit(columns: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the width of each column: narrowed until the table has room, but never within a piece."""
    widths = [max(map(len, column)) for column in columns]
    least = [max(len(piece) for cell in column for piece in _pieces(cell)) for column in columns]
    while sum(widths) + _GAP * (len(widths) - 1) > width:
        slack = [wide - piece for wide, piece in zip(widths, least, strict=True)]
        if max(slack) <= 0:
            break
        widths[slack.index(max(slack))] -= 1
    return widths


def _pieces(cell: str) -> list[str]:
    """Return what stays whole: a name with its value, a score with its interval."""
    return re.split(r"(?<=,) | (?=\()", cell)


def _wrap(cell: str, width: int) -> str:
    """Break a cell into lines between its pieces."""
    whole = " ".join(piece.replace(" ", _NO_BREAK) for piece in _pieces(cell))
    return "\n".join(textwrap.wrap(whole, width)).replace(_NO_BREAK, " ")
