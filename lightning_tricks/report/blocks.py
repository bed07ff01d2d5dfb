"""What the sections of a report are made of: sentences, tables and figures."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from lightning_tricks.markdown import escaped, table
from lightning_tricks.report.drawing import svg


@dataclass(frozen=True)
class Table:
    """Some rows under a header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def html(self) -> str:
        """Return it as HTML, which scrolls by itself where the page is narrow."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.header)
        lines = ("".join(f"<td>{_whole(cell)}</td>" for cell in row) for row in self.rows)
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'

    def markdown(self) -> str:
        """Return it in Markdown."""
        header, *rows = ([escaped(cell) for cell in line] for line in (self.header, *self.rows))
        return table(header, rows)


@dataclass(frozen=True)
class Tiles:
    """A few numbers that are seen first, by their names."""

    values: Mapping[str, str]

    def html(self) -> str:
        """Return them as HTML: side by side, or below each other where the page is narrow."""
        tiles = (
            f"<div><b>{_whole(value)}</b><span>{html.escape(name)}</span></div>"
            for name, value in self.values.items()
        )
        return f'<div class="tiles">{"".join(tiles)}</div>'

    def markdown(self) -> str:
        """Return them as a table in Markdown."""
        return Table(list(self.values), [list(self.values.values())]).markdown()


@dataclass(frozen=True)
class Notes:
    """Sentences below each other."""

    lines: Sequence[str]

    def html(self) -> str:
        """Return them as an HTML list."""
        return f"<ul>{''.join(f'<li>{_marked(line)}</li>' for line in self.lines)}</ul>"

    def markdown(self) -> str:
        """Return them as a list in Markdown."""
        return "\n".join(f"- {line}" for line in self.lines)


@dataclass(frozen=True)
class Code:
    """Lines of code."""

    text: str
    language: str = "python"

    def html(self) -> str:
        """Return them as HTML."""
        return f"<pre>{html.escape(self.text)}</pre>"

    def markdown(self) -> str:
        """Return them as a block of Markdown."""
        return f"```{self.language}\n{self.text}\n```"


@dataclass(frozen=True)
class Picture:
    """A figure, drawn."""

    svg: str

    def html(self) -> str:
        """Return it as HTML; on a phone it scrolls sideways and stays legible."""
        return f'<div class="scroll">{self.svg}</div>'


Written = str | Table | Tiles | Notes | Code
Drawn = Written | Picture
Block = Written | Figure


def drawn(block: Block) -> Drawn:
    """Return a block with its figure drawn, which takes a while: once for all files."""
    return Picture(svg(block)) if isinstance(block, Figure) else block


def _marked(text: str) -> str:
    """Return a sentence as HTML; what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _whole(text: str) -> str:
    """Return a text as HTML that keeps a score and its interval on one line."""
    return re.sub(r"\S+ ± \S+", r'<span class="whole">\g<0></span>', html.escape(text))


def html_of(block: Drawn) -> str:
    """Return a block as HTML."""
    return f"<p>{_marked(block)}</p>" if isinstance(block, str) else block.html()


def markdown(block: Written) -> str:
    """Return a block in Markdown."""
    return escaped(block) if isinstance(block, str) else block.markdown()
