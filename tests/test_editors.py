"""What an editor says of the code in the documents: pyright finds our calls right, without plugins."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_tricks
from lightning_tricks import ImageTricks, InputError, Tricks
from lightning_tricks.space.trick import stages

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CALLS = {"reportCallIssue", "reportArgumentType", "reportUndefinedVariable", "reportReturnType"}
"""Rules that a call of ours may break; others are of packages without types."""
RENAMED = ("unknown import symbol", "No parameter named", "Argument missing for", "is not defined")
"""Words that pyright says of a name that is no longer there."""
OF_THE_READER = {"train", "validation"}
"""Names that a page leaves to its reader."""


def checked(folder, **settings):
    """Return what pyright finds in a folder, or in what the settings include."""
    (folder / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "basic", **settings}))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
    ended = subprocess.run([*command, "-p", str(folder)], capture_output=True, text=True, check=False)
    found = json.loads(ended.stdout)
    assert found["summary"]["filesAnalyzed"] >= 10
    return [
        (
            each.get("rule"),
            f"{Path(each['file']).name}:{each['range']['start']['line'] + 1}: {each['message']}",
        )
        for each in found["generalDiagnostics"]
    ]


@pytest.mark.slow
def test_pyright_finds_the_calls_of_the_documents_right(tmp_path):
    for page in PAGES:
        code = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
        (tmp_path / f"{page.stem}_page.py").write_text("\n".join(code))
    wrong = [
        line
        for rule, line in checked(tmp_path)
        if rule in CALLS and not any(f'"{name}"' in line for name in OF_THE_READER)
    ]
    assert wrong == []


@pytest.mark.slow
def test_benchmarks_and_studies_use_names_that_are_there(tmp_path):
    folders = [str(ROOT / name) for name in ("benchmarks", "studies")]
    found = checked(tmp_path, include=folders, extraPaths=[*folders, str(ROOT)])
    wrong = [line for rule, line in found if any(words in line for words in RENAMED)]
    assert wrong == []


@pytest.mark.parametrize("stage", stages(ImageTricks))
def test_a_stage_lists_its_kinds_with_what_they_do(stage):
    table = ImageTricks.kinds(stage)
    assert [row[0] for row in table.rows] == list(stages(ImageTricks)[stage])
    assert all(what for _, what, *_ in table.rows)
    assert str(table).count("\n") == len(table.rows) - 1
    assert table._repr_html_().count("<tr>") == len(table.rows) + 1


def test_kinds_tell_the_paper_and_the_searched_fields():
    rows = {kind: (papers, searched) for kind, _, papers, searched in Tricks.kinds("optimizer").rows}
    assert rows["adam"] == ("Kingma and Ba, 2015", "lr, beta1")
    assert "muon: w ← w − η" in repr(Tricks.kinds("optimizer"))
    with pytest.raises(InputError, match="did you mean 'optimizer'"):
        Tricks.kinds("optimiser")


def test_a_name_that_is_not_there_is_told_with_one_that_is():
    with pytest.raises(AttributeError, match="no attribute 'optimise'; did you mean 'optimize'"):
        _ = lightning_tricks.optimise
    assert dir(lightning_tricks) == sorted(lightning_tricks.__all__)
