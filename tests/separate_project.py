"""A project that takes a recipe from a study by the study's name: `test_results.py` runs it.

It has its own network, data and Trainer, and its own copy of the recipe's class.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import mlflow
import torch
from mlflow.tracking import MlflowClient
from pydantic import Field
from pytorch_lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks
from lightning_tricks import Int, Tricks, TricksModule, recipe_of_champion, recipe_of_run, references


class Sized(Tricks):
    width: Annotated[int, Int(4, 32)] = Field(16, ge=1)


class Network(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.entrance, self.hidden = nn.Linear(3, width), nn.Linear(width, width)
        self.exit = nn.Linear(width, 1)

    def forward(self, inputs):
        features = self.entrance(inputs).relu()
        features = features + self.hidden(features).relu()
        return self.exit(features)


def recipes(study, uri):
    """Return the champion's recipe, read in three ways."""
    run_id = MlflowClient(uri).get_model_version_by_alias(study, "champion").run_id
    file = mlflow.artifacts.download_artifacts(
        run_id=run_id, artifact_path="tricks.json", tracking_uri=uri
    )
    return [
        recipe_of_champion(study, uri),
        recipe_of_run(run_id, uri),
        Sized.model_validate_json(Path(file).read_text()),
    ]


def train(recipe):
    """Return the final loss on the samples, and the loss without any training: their variance."""
    inputs = torch.randn(256, 3)
    samples = TensorDataset(inputs, inputs.sum(1, keepdim=True))
    module = TricksModule(
        Network(recipe.width),
        recipe,
        loss=nn.functional.mse_loss,
        metrics={},
        monitor="val/loss",
        mode="min",
    )
    trainer = Trainer(max_epochs=12, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(
        module, DataLoader(samples, batch_size=16, shuffle=True), DataLoader(samples, batch_size=64)
    )
    return float(trainer.callback_metrics["val/loss"]), float(samples.tensors[1].var())


def main(study, uri):
    torch.manual_seed(0)
    found = recipes(study, uri)
    loss, variance = train(found[0])
    result = {
        "package": lightning_tricks.__file__,
        "types": [type(recipe).__name__ for recipe in found],
        "recipes": [recipe.model_dump() for recipe in found],
        "loss": loss,
        "variance": variance,
        "references": references(found[0]),
    }
    sys.stdout.write(f"{json.dumps(result)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
