"""Formulas of docstrings stand as they are written there, in letters of one width."""

import re
from html import escape

RELATION = re.compile(r"[←=≤≥]")
_SENTENCE = re.compile(r".*?[.:](?=\s|$)")
_CODE = re.compile(r"`([^`]*)`")


def inline(text: str) -> str:
    """Return a text as HTML, what is in backticks as code."""
    return _CODE.sub(r"<code>\1</code>", escape(text, quote=False))


def split(paragraph: str) -> tuple[str, str]:
    """Split off the sentence that a paragraph begins with, if it is a formula; both are text."""
    found = _SENTENCE.match(paragraph)
    if found is None or not RELATION.search(found.group()):
        return "", paragraph
    return found.group(), paragraph[found.end() :].lstrip()
