"""A study of seconds with a verdict; its recipe has a field of its own."""

import sys
from typing import Annotated

import torch
from conftest import mlp
from pydantic import Field

from lightning_tricks import InMemoryData, Int, Task, Tricks, main


class Sized(Tricks):
    """A recipe with the width of the network."""

    width: Annotated[int, Int(4, 32)] = Field(16, ge=1)


def data():
    """Return samples from which plain learns nothing: one input is far from the others."""
    inputs = torch.randn(160, 6, generator=torch.Generator().manual_seed(0))
    targets = (inputs[:, 0] + inputs[:, 1] > 0).long()
    inputs[:, 5] += 100
    return InMemoryData.from_arrays(inputs, targets, batch_size=16)


def backbone(tricks):
    return mlp(width=tricks.width, classes=2)


def task():
    return Task("judged", data(), backbone, epochs=8, tricks=Sized)


if __name__ == "__main__":
    sys.exit(main(task, n_trials=4, finalists=1, repeats=1))
