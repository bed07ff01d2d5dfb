"""The notebook in `studies/` runs from its first cell to its last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "studies" / "first_study.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_shows_its_answer(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # stale ones, say
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": tmp_path}}).execute()
    shown = "".join(str(cell.get("outputs", "")) for cell in notebook.cells)
    assert any(label in shown for label in ("Confirmed gain: ", "Not confirmed: ", "No gain found: "))
    assert "muon" in shown  # among the kinds of optimizers
