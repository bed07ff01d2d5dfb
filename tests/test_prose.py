"""Docstrings, comments, messages and documents are in plain English: some words never come back."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLAIN = {
    "anew": "again",
    "so many": "the quantity, by its name",
    "as many as": "the quantity, by its name",
    "is told": "who tells it",
    "are told": "who tells them",
    "is asked": "who asks",
    "but for": "except",
    "less the": "minus the",
    "beside": "next to, or in addition to",
    "one's own": "your own",
    "upon": "on",
    "thereof": "of it",
    "initialis": "initializ",
    "optimis": "optimiz",
    "normalis": "normaliz",
    "behaviour": "behavior",
    "colour": "color",
}
"""What is not written, and what is, in its place."""
CODE = [
    path
    for folder in ("lightning_tricks", "studies", "benchmarks", "docs")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *(
        path
        for folder in ("docs", "studies", "benchmarks")
        for path in sorted((ROOT / folder).glob("*.md"))
    ),
]


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Return the sentences of a file by line: of code its strings and comments, but no names."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = re.sub(r"```.*?```", lambda code: "\n" * code[0].count("\n"), text, flags=re.DOTALL)
        yield from enumerate(text.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield from enumerate(node.value.splitlines(), node.lineno)


@pytest.mark.parametrize("path", [*CODE, *DOCUMENTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_words_that_make_a_reader_stop_are_not_used(path):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {word!r}: write {better}"
        for number, line in prose(path)
        for word, better in PLAIN.items()
        if re.search(
            rf"\b{word}" + (r"\b" if not word.endswith("s") else ""),
            re.sub(r"`[^`]*`|'[^']*'", "", line),
            re.I,
        )
    ]
    assert found == []
