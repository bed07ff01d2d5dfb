"""Does the cookbook's recipe with transformers run?"""

import re
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from lightning_tricks import ModuleTricks, Task, create_study, load_study, optimize

transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")]

PAGE = Path(__file__).parents[2] / "docs" / "cookbook.md"
CONFIG = transformers.DistilBertConfig(
    vocab_size=32, dim=16, hidden_dim=32, n_layers=2, n_heads=2, max_position_embeddings=8
)


def test_the_recipe_with_transformers_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    auto = transformers.AutoModelForSequenceClassification
    monkeypatch.setattr(auto, "from_pretrained", lambda *_, **__: auto.from_config(CONFIG))
    one = {"input_ids": torch.arange(8), "attention_mask": torch.ones(8), "labels": torch.tensor(1)}
    loader = DataLoader([one] * 8, batch_size=4)
    shown = {
        "pl": pl,
        "torch": torch,
        "ModuleTricks": ModuleTricks,
        "Task": Task,
        "create_study": create_study,
        "optimize": optimize,
        "train": loader,
        "validation": loader,
    }
    for block in re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.M):
        small = block.replace("n_trials=20, finalists=3", "n_trials=3")
        exec(compile(small, PAGE.name, "exec"), shown)
    assert len(load_study("bert", "optuna.journal").trials) == 3
