"""The kinds of a stage as a table: what each does, its paper, and what a search varies."""

from collections.abc import Mapping
from dataclasses import dataclass

from lightning_tricks.notebook import html_table
from lightning_tricks.space.domains import Domain
from lightning_tricks.space.trick import Trick
from lightning_tricks.tricks.papers import papers_of

HEADER = ("kind", "what it does", "paper", "searched")


@dataclass(frozen=True)
class Kinds:
    """A table of kinds, for a terminal and for a notebook."""

    rows: tuple[tuple[str, str, str, str], ...]
    """Kind, formula, papers and searched fields."""

    def __str__(self) -> str:
        return "\n".join(_line(*row) for row in self.rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(HEADER, self.rows)


def _line(kind: str, what: str, paper: str, searched: str) -> str:
    return f"{kind}: {what}{f' Searched: {searched}.' if searched else ''}"


def kinds_of(options: Mapping[str, type[Trick]]) -> Kinds:
    """Return the table of a stage.

    Args:
        options: the variants of the stage by kind.
    """
    return Kinds(tuple((kind, *_facts(trick)) for kind, trick in options.items()))


def _facts(trick: type[Trick]) -> tuple[str, str, str]:
    what = (trick.__doc__ or "").strip().partition("\n")[0]
    papers = "; ".join(paper.key for paper in papers_of(trick))
    fields = trick.model_fields.items()
    searched = [name for name, field in fields if any(isinstance(m, Domain) for m in field.metadata)]
    return what, papers, ", ".join(searched)
