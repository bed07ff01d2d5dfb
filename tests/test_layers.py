"""The package as a whole: its public names, and that data flows one way."""

import ast
import re
from pathlib import Path

import pytest

import lightning_tricks

PACKAGE = Path(lightning_tricks.__file__).parent
ROOT = PACKAGE.parent
TABLE = (ROOT / "ARCHITECTURE.md").read_text().partition("| module |")[2].partition("\n\n")[0]
ORDER = re.findall(r"`(\w+)(?:\.py|/)`", TABLE)
"""The order of reading, as the table says it."""


def imports(path):
    """Return the modules of the package that a file imports, and all packages."""
    own, packages = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            packages.add(parts[0])
            if parts[0] == "lightning_tricks":
                own |= {parts[1]} if len(parts) > 1 else {name.name for name in node.names}
        elif isinstance(node, ast.Import):
            packages |= {name.name.split(".")[0] for name in node.names}
    return own, packages


FILES = [p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_modules_above_it(path):
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    above = set(ORDER[: ORDER.index(name)])
    own, packages = imports(path)
    assert own <= above | ({"tricks"} if name == "tricks" else set())
    assert "mlflow" not in packages or name == "tracking"
    assert "optuna" not in packages or name != "trial"


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


def test_every_module_is_in_the_architecture():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for name in ORDER:
        assert f"`{name}.py`" in text or f"`{name}/`" in text, name


def test_the_example_of_the_readme_runs(capsys):
    text = (ROOT / "README.md").read_text()
    (example,) = re.findall(r"## Example\n\n```python\n(.*?)```", text, flags=re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})
    assert "best (trial" in capsys.readouterr().out
