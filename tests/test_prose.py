"""Docstrings, comments, messages and documents are in plain English: some words do not come back."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLAIN = {
    r"anew": "again",
    r"so many": "the quantity, by its name",
    r"(is|are) (told|asked)": "who tells or asks",
    r"but for": "except",
    r"less the": "minus the",
    r"beside": "next to, or in addition to",
    r"one's own": "your own",
    r"upon|thereof": "on, of it",
    r"(initial|normal|optim|organ)is(e|ed|er|ing|ation)": "American spelling",
    r"behaviour|colour": "American spelling",
}
"""What is not written, as a pattern of whole words, and what is written in its place."""
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
        f"{path.relative_to(ROOT)}:{number}: {hit[0]!r}, better: {better}"
        for number, line in prose(path)
        for pattern, better in PLAIN.items()
        if (hit := re.search(rf"\b({pattern})\b", re.sub(r"`[^`]*`", "", line), re.IGNORECASE))
    ]
    assert found == []
