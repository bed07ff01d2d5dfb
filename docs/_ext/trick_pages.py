"""A Sphinx extension: an index of all tricks, and a page for each, made from its class.

Each build reads the class, the tests, `worth.md` and the modules that call the trick. The pages are
written to `tricks/`, which is not under version control.
"""

import inspect
from html import escape
from pathlib import Path
from typing import Any

from evidence import Known, acts, paragraphs, says
from fields import example, hyperparameters
from formulas import inline, split
from sphinx.application import Sphinx

from lightning_tricks.space.space import Space
from lightning_tricks.space.trick import Trick, kind_of, stages
from lightning_tricks.tricks.papers import papers_of
from lightning_tricks.tricks.recipe import Tricks

HELPS = "When it helps: "
MOST_TESTS = 12
NO_BREAK = "\u00a0"
INTRODUCTION = """
A stage is one field of the recipe `Tricks`, and holds one of its kinds. Each kind has a page, made from
its class.
"""


def setup(app: Sphinx) -> dict[str, Any]:
    """Register `write_pages`, so that Sphinx finds the pages among its sources."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages(app: Sphinx) -> None:
    """Write the pages that are new or changed, and remove pages that no longer exist."""
    folder = Path(app.srcdir) / "tricks"
    pages = {
        folder / name: text for name, text in all_pages(Known.read(Path(app.srcdir).parent)).items()
    }
    for path in folder.rglob("*.md"):
        if path not in pages:
            path.unlink()
    for path, text in pages.items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def all_pages(known: Known) -> dict[str, str]:
    """Return the text of each page, by its path."""
    pages = {"index.md": _index(known)}
    for stage, options in stages(Tricks).items():
        pages[f"{stage}/index.md"] = _stage_page(stage, options, known)
        for kind, trick in options.items():
            pages[f"{stage}/{kind}.md"] = trick_page(stage, kind, trick, known)
    return pages


def _index(known: Known) -> str:
    rows = [
        f"| [{stage}]({stage}/index.md) | {says(_base(options))} | "
        + ", ".join(f"[{kind}]({stage}/{kind}.md)" for kind in options)
        + f" | {known.named([t.__name__ for t in known.types if len(_kinds(t, stage)) > 1])} |"
        for stage, options in stages(Tricks).items()
    ]
    return "\n".join(
        [
            "# The tricks\n",
            INTRODUCTION,
            "| stage | what it says | kinds | searched by default in |\n| --- | --- | --- | --- |",
            *rows,
            _toctree([f"{stage}/index" for stage in stages(Tricks)]),
        ]
    )


def _stage_page(stage: str, options: dict[str, type[Trick]], known: Known) -> str:
    base = _base(options)
    lines = [f"# {stage}\n", _html(says(base))]
    if len({trick.__module__ for trick in options.values()}) == 1:
        lines += [_html(part) for part in paragraphs(inspect.getmodule(base))[1:]]
    lines += ["## When it acts\n", *acts(base, stage, known)]
    lines += ["## Its kinds\n", f"| kind | what it does | searched by default in | {_budgets(known)} |"]
    lines += ["| --- | --- | --- | --- |"]
    for kind, trick in options.items():
        worth = known.worth.get((stage, kind))
        points = "; ".join(one.points.replace(" ", NO_BREAK) for one in worth or ()) or "—"
        searching = known.named(known.searching(stage, kind))
        about = inline(paragraphs(trick)[0]).replace("|", "&#124;")
        lines += [f"| [{kind}]({kind}.md) | {about} | {searching} | {points} |"]
    note = "\nPoints: what each kind was worth alone on one network, see [the table](../../worth.md).\n"
    return "\n".join([*lines, note, _toctree([f"{kind} <{kind}>" for kind in options])])


def _budgets(known: Known) -> str:
    """Return the heading of the column of points."""
    some = next(iter(known.worth.values()))
    return f"alone, points in {' and '.join(str(one.epochs) for one in some)} epochs"


def trick_page(stage: str, kind: str, trick: type[Trick], known: Known) -> str:
    """Return the page of one trick."""
    first, *further = paragraphs(trick)
    formula, rest = split(first)
    helps = [part.removeprefix(HELPS) for part in further if part.startswith(HELPS)]
    further = [part for part in further if not part.startswith(HELPS)]
    cites = {paper.key: paper.url for paper in papers_of(trick)}
    lines = [f"# {stage}: {kind}\n", _html(formula, cites, "formula") if formula else ""]
    lines += [_html(part, cites) for part in (rest, *further) if part]
    module = inspect.getmodule(trick)
    if ".optimizers." in trick.__module__:  # a file for each
        lines += [_html(part) for part in paragraphs(module)[1:]]
    if helps:
        lines += ["## When it helps\n", *[_html(part[0].upper() + part[1:], cites) for part in helps]]
    lines += [
        "## Hyperparameters\n",
        *hyperparameters(trick),
        "",
        _searched(stage, kind, trick.neutral, known),
    ]
    lines += ["## When it acts\n", *acts(trick, stage, known)]
    lines += ["## Example\n", example(stage, kind, trick)]
    if worth := known.worth.get((stage, kind)):
        lines += ["## What it was worth\n", "Alone, in test accuracy:\n"]
        lines += [f"- in {w.epochs} epochs {w.points} points, to {w.accuracy}%" for w in worth]
        lines += ["\n[How it was measured](../../worth.md), on one small network.\n"]
    lines += ["## How it is tested\n", *_tested(stage, kind, trick, known)]
    for paper in papers_of(trick):
        link = escape(paper.text().removesuffix(paper.url))
        lines += [f"## {paper.key}\n", f'<p>{link}<a href="{paper.url}">{paper.url}</a></p>\n']
        lines += [f"<details><summary>BibTeX</summary><pre>{escape(paper.bibtex())}</pre></details>\n"]
    source = f"`{trick.__name__}`, in `{trick.__module__.replace('.', '/')}.py`"
    return "\n".join([*lines, f"\nMade from the class {source}.\n"])


def _searched(stage: str, kind: str, neutral: bool, known: Known) -> str:
    searching = known.searching(stage, kind)
    names = ", ".join(f"`{name}`" for name in searching)
    asked = f'`narrow` asks for it: `Space(Tricks).narrow({{"{stage}": ["{kind}"]}})`'
    text = (
        f"It is searched by default in {names}." if names else f"No search proposes it unasked; {asked}."
    )
    if neutral and not names:
        text = "No search changes this stage unasked."
    recipes = {f"{of.__name__}()": of() for of in known.types}
    recipes |= {"Tricks.plain()": Tricks.plain(), "Tricks.fine_tuning()": Tricks.fine_tuning()}
    having = [
        f"`{name}`" for name, recipe in recipes.items() if kind_of(type(getattr(recipe, stage))) == kind
    ]
    return text + (f" It is part of {', '.join(having)}.\n" if having else "\n")


def _tested(stage: str, kind: str, trick: type[Trick], known: Known) -> list[str]:
    among = set(stages(Tricks))
    own = [t for t in known.tests if not t.contract and t.exercises(stage, kind, trick.__name__, among)]
    near = sorted(
        own, key=lambda test: stage not in test.file and kind not in test.name and stage not in test.name
    )
    shown = [
        f"- `{test.file}`: {test.name.removeprefix('test_').replace('_', ' ')}"
        for test in near[:MOST_TESTS]
    ]
    more = [f"- and {len(own) - MOST_TESTS} more"] if len(own) > MOST_TESTS else []
    contracts = [
        f"- {test.name.removeprefix('test_').replace('_', ' ')}" for test in known.tests if test.contract
    ]
    head = ["Tests that name it:\n", *shown, *more, ""] if shown else []
    return [*head, "Contracts that hold for every trick, in `test_contracts.py`:\n", *contracts, ""]


def _base(options: dict[str, type[Trick]]) -> type[Trick]:
    """Return the first class from which all kinds of a stage derive."""
    ways = [trick.__mro__ for trick in options.values()]
    return next(kind for kind in ways[0] if all(kind in way for way in ways))


def _kinds(of: type[Tricks], stage: str) -> Any:
    return Space(of).domains[stage].extremes()


def _html(text: str, cites: dict[str, str] | None = None, style: str = "") -> str:
    made = inline(text)
    for key, url in (cites or {}).items():
        made = made.replace(escape(key), f'<a href="{url}">{escape(key)}</a>')
    return f'<p class="{style}">{made}</p>\n' if style else f"<p>{made}</p>\n"


def _toctree(names: list[str]) -> str:
    return "\n```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```\n"
