"""Facts about a trick from outside its class: its tests, its measured worth, the hooks that call it."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sphinx.errors import ExtensionError

import lightning_tricks
from lightning_tricks.space.space import Space
from lightning_tricks.space.trick import Trick, stages
from lightning_tricks.tricks.recipe import Tricks

CONTRACTS = "test_contracts.py"
"""The file of the tests that go through all tricks."""
VARIANTS = {"VARIANTS", "ALL_PAIRS"}
"""Names by which a test goes through all tricks, or through those of the stages that it names."""

WHEN = {
    "__init__": "When the module is made",
    "take_tricks": "When the module is made",
    "on_fit_start": "Once, before the first step of training",
    "learned": "In each training step, before the forward pass",
    "configure_optimizers": "When training begins, for all of its steps",
    "parameter_groups": "When training begins, for all of its steps",
    "schedule_of": "When training begins, for all of its steps",
    "configure_callbacks": "While training, as a callback of the Trainer",
    "optimizer_step": "In each step, around the passes forward and back",
    "configure_gradient_clipping": "In each step, between the backward pass and the optimizer's step",
}
"""For each hook that calls tricks, when it runs."""


@dataclass
class Test:
    """A test function, with the names and strings in its source and in the code that it uses."""

    file: str
    name: str
    names: set[str] = field(default_factory=set)
    strings: set[str] = field(default_factory=set)

    def exercises(self, stage: str, kind: str, trick: str, among: set[str]) -> bool:
        """Tell whether the test names the trick: its class, or both its kind and its stage.

        Args:
            stage: the stage of the trick.
            kind: the kind of the trick.
            trick: the class name of the trick.
            among: all stages. A test that goes through the variants of one stage tests that stage only.
        """
        if trick in self.names or (kind in self.strings and stage in self.names | self.strings):
            return True
        return bool(self.names & VARIANTS) and among & self.strings == {stage}

    @property
    def contract(self) -> bool:
        """Whether the test goes through the tricks of all stages."""
        return self.file == CONTRACTS and bool(self.names & VARIANTS)


def read_tests(folder: Path) -> list[Test]:
    """Return the tests in a folder."""
    return [test for path in sorted(folder.glob("test_*.py")) for test in _tests_of(path)]


def _tests_of(path: Path) -> Iterator[Test]:
    tree = ast.parse(path.read_text())
    parts: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            parts[node.name] = node
        elif isinstance(node, ast.Assign):
            parts |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
    for name, node in parts.items():
        if name.startswith("test_") and isinstance(node, ast.FunctionDef):
            test = Test(path.name, name)
            _gather(node, parts, test, set())
            yield test


def _gather(node: ast.AST, parts: dict[str, ast.stmt], test: Test, seen: set[str]) -> None:
    """Collect names and strings of a function, and of the functions and tables that it uses."""
    looked_up = {id(n.slice) for n in ast.walk(node) if isinstance(n, ast.Subscript)}
    compared = {id(part) for n in ast.walk(node) if isinstance(n, ast.Compare) for part in n.comparators}
    for inner in ast.walk(node):
        if id(inner) in looked_up or (id(inner) in compared and "interval" in ast.unparse(node)):
            continue  # `schedule["interval"] == "step"` names no trick
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            test.strings.add(inner.value)
        elif isinstance(inner, ast.keyword) and inner.arg:
            test.names.add(inner.arg)
        elif isinstance(inner, ast.arg):
            if inner.arg in parts and inner.arg not in seen:  # a fixture
                seen.add(inner.arg)
                _gather(parts[inner.arg], parts, test, seen)
        elif isinstance(inner, ast.Name):
            test.names.add(inner.id)
            if inner.id in parts and inner.id not in seen and not inner.id.startswith("test_"):
                seen.add(inner.id)
                _gather(parts[inner.id], parts, test, seen)


@dataclass(frozen=True)
class Worth:
    """What a trick alone was worth with some budget, from `worth.md`."""

    epochs: int
    accuracy: str
    points: str


def read_worth(page: Path) -> dict[tuple[str, str], list[Worth]]:
    """Return the rows of the table by stage and kind, budget by budget."""
    lines = [line.strip("|").split("|") for line in page.read_text().splitlines() if line[:1] == "|"]
    (head, _, *rows) = ([cell.strip(" `") for cell in line] for line in lines)
    budgets = [int(cell.split()[0]) for cell in head if cell.endswith("epochs: rate")]
    found = {}
    for stage, kind, *cells in rows:
        pairs = zip(cells[1::3], cells[2::3], strict=True)  # each after a learning rate
        found[stage, kind] = [Worth(b, *pair) for b, pair in zip(budgets, pairs, strict=True)]
    return found


@dataclass(frozen=True)
class Act:
    """A hook of the module that calls a method of a stage's trick."""

    hook: str
    method: str


def read_acts(files: list[Path], stages: set[str]) -> dict[str, list[Act]]:
    """Return, for each stage, where the modules call its tricks: `self.tricks.clipping.clip(…)`."""
    found: dict[str, list[Act]] = {stage: [] for stage in stages}
    for path in files:
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    *_, recipe, stage, method = ["", "", *ast.unparse(node.func).split(".")]
                    act = Act(function.name, method)
                    if recipe in ("tricks", "recipe") and stage in stages and act not in found[stage]:
                        found[stage].append(act)
    return found


def idle(function: Callable[..., object]) -> bool:
    """Tell whether a function does nothing and returns nothing."""
    (defined,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    body = defined.body if isinstance(defined, ast.FunctionDef) else []
    nothing = ("return None", "return []")
    return all(
        isinstance(line, ast.Delete)
        or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))  # the docstring
        or ast.unparse(line) in nothing
        for line in body
    )


@dataclass(frozen=True)
class Known:
    """Everything on the pages that does not come from the classes."""

    tests: list[Test]
    worth: dict[tuple[str, str], list[Worth]]
    acts: dict[str, list[Act]]
    types: list[type[Tricks]]

    @classmethod
    def read(cls, root: Path) -> "Known":
        """Read the repository."""
        module = root / "lightning_tricks" / "module"
        public = [getattr(lightning_tricks, name) for name in lightning_tricks.__all__]
        return cls(
            read_tests(root / "tests"),
            read_worth(root / "docs" / "worth.md"),
            read_acts([module / "tricks_module.py", module / "hooks.py"], set(stages(Tricks))),
            [kind for kind in public if isinstance(kind, type) and issubclass(kind, Tricks)],
        )

    def searching(self, stage: str, kind: str) -> list[str]:
        """Return the recipe types with searches that propose a kind."""
        spaces = {of.__name__: Space(of).domains[stage].extremes() for of in self.types}
        return [name for name, kinds in spaces.items() if kind in kinds and len(kinds) > 1]

    def named(self, types: list[str]) -> str:
        """Return the names of recipe types for a table cell."""
        return "all" if len(types) == len(self.types) else ", ".join(types) or "—"


def acts(trick: type[Trick], stage: str, known: Known) -> list[str]:
    """Return the lines of a list: the hooks that call the trick, when, and what for."""
    lines = []
    for act in known.acts[stage]:
        if act.hook not in WHEN:
            raise ExtensionError(f"trick_pages: WHEN does not say when the hook {act.hook!r} is called")
        method = getattr(trick, act.method)
        if inspect.isabstract(trick) or not idle(method):
            lines.append(f"- {WHEN[act.hook]}, `{act.hook}` calls `{act.method}`: “{says(method)}”")
    return [*(lines or ["It does nothing: the stage is off."]), ""]


def paragraphs(thing: Any) -> list[str]:
    """Return the paragraphs of a docstring, each on one line."""
    text = inspect.getdoc(thing) or ""
    return [" ".join(part.split()) for part in text.split("\n\n")]


def says(thing: Any) -> str:
    """Return the first paragraph of a docstring."""
    return paragraphs(thing)[0]
