"""Markdown with escaped text, because metric names may hold any character."""

import re
from collections.abc import Sequence

_SPECIAL = re.compile(r"[\\`*<\[&|]")


def escaped(text: str) -> str:
    """Return the text with all markup escaped."""
    return _SPECIAL.sub(r"\\\g<0>", text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; cells may contain markup."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
