"""Does dropout speed up training, as readers of a course notebook conclude?

Trains the notebook's network at its rates (0, 0.2, 0.5, 0.8), with Adam and batches of 64, on
Fashion-MNIST, over five seeds each. Prints the validation accuracy by epoch: mean and 95% confidence
interval.

    python studies/dropout.py [--data-dir FOLDER] [--images 10000] [--epochs 5] [--figure dropout.png]
"""

import argparse
import statistics
import sys

from figures import at_least, figure

from lightning_tricks import InputError

RATES = (0.0, 0.2, 0.5, 0.8)


def network(tricks):
    """Return the notebook's network; the rate of its dropout layer comes from the recipe."""
    # Slow imports, here and below, wait until the arguments are read.
    from torch import nn

    del tricks
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.0),
        nn.Linear(64 * 7 * 7, 10),
    )


def recipe(rate: float):
    """Return the recipe: Adam, inputs in [0, 1], Glorot's weights as in Keras, and the dropout rate."""
    from lightning_tricks import Tricks

    dropout = {"kind": "dropout", "p": rate} if rate else {"kind": "none"}
    return Tricks.parse(
        {
            **Tricks.plain().model_dump(),
            "scaling": {"kind": "unit"},
            "initialization": {"kind": "glorot_uniform"},
            "optimizer": {"kind": "adam", "lr": 1e-3},
            "dropout": dropout,
        }
    )


def accuracies(task, rate: float, seed: int) -> list[float]:
    """Return the validation accuracy after each epoch."""
    from lightning_tricks import train

    result = train(task, recipe(rate), seed)
    return [epoch.score for epoch in result.epochs]


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95% confidence interval (Student's t)."""
    from scipy import stats

    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values), float(half)


def main() -> int:
    """Train, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--images", type=at_least(100), default=10_000)
    parser.add_argument("--epochs", type=at_least(1), default=5)
    parser.add_argument("--seeds", type=at_least(2), default=5)
    parser.add_argument("--figure", type=figure, default="dropout.png")
    given = parser.parse_args()

    import matplotlib.pyplot as plt
    from image_data import fashion_mnist
    from joblib import Parallel, delayed

    from lightning_tricks import Task

    try:
        data = fashion_mnist(given.data_dir, train=given.images, batch_size=64)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    task = Task("dropout", data, network, epochs=given.epochs)
    runs = [(rate, seed) for seed in range(given.seeds) for rate in RATES]
    found = dict(
        zip(
            runs,
            Parallel(n_jobs=-1)(delayed(accuracies)(task, *run) for run in runs),
            strict=True,
        )
    )
    print("validation accuracy by epoch, %")
    drawing, axis = plt.subplots(figsize=(7, 4.5))
    for rate in RATES:
        columns = zip(*(found[rate, seed] for seed in range(given.seeds)), strict=True)
        rows = [interval([100 * value for value in column]) for column in columns]
        print(f"rate {rate:.1f}  " + "  ".join(f"{mean:.2f} ± {half:.2f}" for mean, half in rows))
        means, halves = zip(*rows, strict=True)
        axis.errorbar(range(1, given.epochs + 1), means, halves, label=f"rate {rate}", capsize=3)
    axis.set(xlabel="epoch", ylabel="validation accuracy, %", xticks=range(1, given.epochs + 1))
    axis.legend()
    drawing.tight_layout()
    drawing.savefig(given.figure)
    print(f"the figure is in {given.figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
