"""What the sections of a report are made of: sentences, tables and figures."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from lightning_tricks.markdown import escaped, table
from lightning_tricks.report.figures import svg


@dataclass(frozen=True)
class Table:
    """Some rows under a header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def html(self) -> str:
        """Return it as HTML, which scrolls by itself where the page is narrow."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.header)
        lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self.rows)
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'

    def markdown(self) -> str:
        """Return it in Markdown."""
        header, *rows = ([escaped(cell) for cell in line] for line in (self.header, *self.rows))
        return table(header, rows)


Block = str | Table | Figure


def html_of(block: Block) -> str:
    """Return a block as HTML, figures as SVG."""
    if isinstance(block, Figure):
        return svg(block)
    return block.html() if isinstance(block, Table) else f"<p>{html.escape(block)}</p>"


def markdown(block: str | Table) -> str:
    """Return a block in Markdown."""
    return block.markdown() if isinstance(block, Table) else escaped(block)
