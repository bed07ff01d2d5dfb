"""Find formulas in docstrings, to show them unchanged in a monospaced font."""

import re
from html import escape

RELATION = re.compile(r"[←=≤≥]")
_SENTENCE = re.compile(r".*?[.:](?=\s|$)")
_CODE = re.compile(r"`([^`]*)`")


def inline(text: str) -> str:
    """Return a text as HTML, with text in backticks as code."""
    return _CODE.sub(r"<code>\1</code>", escape(text, quote=False))


def split(paragraph: str) -> tuple[str, str]:
    """Split off a paragraph's first sentence if it is a formula; return the formula and the rest."""
    found = _SENTENCE.match(paragraph)
    if found is None or not RELATION.search(found.group()):
        return "", paragraph
    return found.group(), paragraph[found.end() :].lstrip()
