"""What the documents show is run."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from lightning_tricks import Space, Task
from lightning_tricks.task.checks import check

DOCUMENTS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def pictures():
    for kind in ("cat", "dog"):
        folder = Path("pictures/train", kind)
        folder.mkdir(parents=True)
        for number in range(8):
            pixels = torch.randint(256, (40, 40, 3), dtype=torch.uint8).numpy()
            Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.mark.usefixtures("pictures")
def test_bring_your_own():
    text = (DOCUMENTS / "bring_your_own.md").read_text()
    shown: dict = {"__name__": "document"}
    tasks = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "bring_your_own.md", "exec"), shown)
        tasks |= {task.name: task for task in shown.values() if isinstance(task, Task)}
    assert set(tasks) == {"mine", "tuned", "module"}
    for task in tasks.values():
        check(task, Space(task.tricks))
    assert next(iter(shown["loader"]))[0].shape == (8, 3, 32, 32)
    assert type(shown["plain"]).__name__ == "Mine"
