"""HTML tables for notebooks."""

from collections.abc import Iterable, Sequence
from html import escape


def html_table(header: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """Return an HTML table with escaped cells."""
    lines = [f"<tr>{_cells('th', header)}</tr>", *(f"<tr>{_cells('td', row)}</tr>" for row in rows)]
    return f"<table><caption>{escape(caption)}</caption>{''.join(lines)}</table>"


def _cells(tag: str, row: Sequence[object]) -> str:
    style = ' style="text-align: left"'
    return "".join(f"<{tag}{style}>{escape(str(cell))}</{tag}>" for cell in row)
