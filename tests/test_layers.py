"""The package as a whole: its public names, and imports in one direction only."""

import ast
import re
import statistics
from pathlib import Path

import pytest

import lightning_tricks

MOST_LINES = 250
MOST_IN_BODY = 30
LISTS = {"_parser": "a line a flag", "optimize": "a line a check, and a line a part of the session"}
"""Functions with longer bodies, and why."""
LONG = {
    "comparison": "one comparison, from the first seed to its rows",
    "coordinator": "one run of a study, which events enter and leave",
    "space": "one class; what it walks is in `paths`",
    "domains": "five domains that are read side by side",
    "initialization": "ten distributions that are read side by side",
    "papers": "a list, two thirds of it",
    "optimize": "half of it what its arguments mean",
    "task": "one class, half of it what its arguments mean",
}
"""Longer files, and why."""
PACKAGE = Path(lightning_tricks.__file__).parent
ROOT = PACKAGE.parent
ROWS = re.findall(
    r"^\| (?:`(\w+)/`|\(top\)) \|[^|]*\|(.*)\|$", (ROOT / "ARCHITECTURE.md").read_text(), re.M
)


def files_of(folder, cell):
    """Return the files of a folder in order: by its docstring, or for the top by the table's cell."""
    if not folder:
        return re.findall(r"`(\w+)\.py`", cell)
    doc = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text()))
    return re.findall(r"^- `(\w+)(?:\.py|/)`", doc, re.M)


FOLDERS = {folder: files_of(folder, cell) for folder, cell in ROWS}
"""The files of each folder in the order of its docstring; those of the top under ''."""
ORDER = [f"{folder}.{name}".strip(".") for folder, names in FOLDERS.items() for name in names]


def place(path):
    """Return the position of a file in the order of imports."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts[:2]
    return ORDER.index(".".join(parts))


def imports(path):
    """Return the modules of the package that a file imports, and all packages."""
    own, packages = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            package, *inside = node.module.split(".")
            packages.add(package)
            if package == "lightning_tricks":
                names = [n.name for n in node.names]
                whole = [[*inside, name] for name in names] if len(inside) < 2 else [inside]
                own |= {".".join(parts[:2]) for parts in whole}
        elif isinstance(node, ast.Import):
            packages |= {name.name.split(".")[0] for name in node.names}
    return {name if name in ORDER else name.partition(".")[0] for name in own}, packages


FILES = [p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_imports_only_what_is_named_above_it(path):
    own, packages = imports(path)
    here = place(path)
    inside = {ORDER[here]} if PACKAGE not in (path.parent.parent, path.parent) else set()
    assert own <= set(ORDER[:here]) | inside
    folder = path.relative_to(PACKAGE).parts[0]
    assert "mlflow" not in packages or folder == "tracking"
    assert "optuna" not in packages or folder != "trial"


def test_the_folders_hold_no_code_of_their_own():
    for path in PACKAGE.rglob("*/__init__.py"):
        (only,) = ast.parse(path.read_text()).body
        assert isinstance(only, ast.Expr), path


def test_files_are_short_and_so_are_functions():
    lines = {path: len(path.read_text().splitlines()) for path in FILES}
    assert {str(p): n for p, n in lines.items() if n > MOST_LINES and p.stem not in LONG} == {}
    bodies = {
        node.name: body[-1].end_lineno - body[0].lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and (body := node.body[ast.get_docstring(node) is not None :])
    }
    assert statistics.median(bodies.values()) <= 6
    assert {name: n for name, n in bodies.items() if n > MOST_IN_BODY and name not in LISTS} == {}


def test_every_public_name_is_there_for_editors_and_when_it_is_used():
    names = lightning_tricks.__all__
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {name.name: node.module for node in block.body for name in node.names}
    assert seen == {name: f"lightning_tricks.{m}" for name, m in lightning_tricks._MODULE_OF.items()}
    assert sorted(names) == sorted(seen)
    for name in names:
        assert getattr(lightning_tricks, name).__name__ == name
    assert set(names) <= set(dir(lightning_tricks))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = lightning_tricks.nothing


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.md")) + sorted((ROOT / "studies").glob("*.md")))
def test_the_files_that_the_documents_name_are_there(path):
    text = path.read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in link:
            assert (path.parent / link).exists(), link
    for name in re.findall(r"`((?:studies|benchmarks|tests)/[\w./]+\.py)`", text):
        assert (ROOT / name).exists(), name


def test_every_file_is_in_the_architecture():
    assert len(set(ORDER)) == len(ORDER)
    files = {".".join(p.relative_to(PACKAGE).with_suffix("").parts[:2]) for p in FILES}
    assert files == set(ORDER)


@pytest.mark.slow
def test_the_example_of_the_readme_runs(capsys):
    text = (ROOT / "README.md").read_text()
    example = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[0]
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})
    shown = capsys.readouterr().out
    assert re.match(r"(Confirmed gain|Not confirmed|No gain found): ", shown)
    assert shown.count("(champion)") == 1
