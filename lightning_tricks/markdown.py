"""Markdown of text that is to be read as it stands: names of metrics may hold any character."""

import re
from collections.abc import Sequence

_SPECIAL = re.compile(r"[\\`*<\[&|]")


def escaped(text: str) -> str:
    """Return a text in which nothing is taken for markup."""
    return _SPECIAL.sub(r"\\\g<0>", text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table, of cells in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
