"""How the site is built: `sphinx-build -W --keep-going -n -b html docs OUT`."""

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from sphinx.application import Sphinx  # noqa: E402

project = "lightning_tricks"
author = "the contributors of lightning_tricks"
project_copyright = author
release = version = version_of("lightning_tricks")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "trick_pages"]
exclude_patterns = ["_build", "_ext"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
# A browser refuses to fetch what they are taken from where the site is opened from a disk.
html_show_search_summary = False
myst_heading_anchors = 3
# Single quotes of backticks in docstrings are code, as in Markdown.
default_role = "code"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
# What other packages document is on their sites, which a build does not ask for.
# Nor has the API a page for every type that a signature names.
nitpick_ignore_regex = [
    ("py:.*", r"(?!lightning_tricks).*"),
    ("py:class", r"lightning_tricks\..*\.(T|Ablation|Anatomy|Class|Domain|StudyMaker|TricksHooks)"),
]


def as_markdown(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Read the section `Example:` as code, and names with a plural, as Markdown does."""
    del app, what, name, thing, options
    text = re.sub(r"^Example:\n(?= +\S)", "Example::\n\n", "\n".join(lines), flags=re.M)
    text = re.sub(r"(`[^`\n]+`)(?=\w)", r"\1\\ ", text)  # the plural of a name
    lines[:] = text.split("\n")


def without_factories(
    app: Sphinx,
    what: str,
    name: str,
    thing: Any,
    options: Any,
    signature: str | None,
    result: str | None,
) -> tuple[str | None, str | None]:
    """Show a default that is made at each call as `...`."""
    del app, what, name, thing, options
    return signature and signature.replace("<factory>", "..."), result


def setup(app: Sphinx) -> None:
    """Read docstrings as they are written here."""
    app.connect("autodoc-process-signature", without_factories)
    app.connect("autodoc-process-docstring", as_markdown, priority=100)
