"""What recomputing batch-norm statistics costs, from 32 batches and from the whole split.

An average of weights needs its own statistics at each validation. A convnet with batch norm is trained
on Fashion-MNIST without an average, and with an exponential average whose statistics come from the first
32 batches of the epoch or from all. The three take turns, with the same seeds. Prints the ratios of the
seconds, and the difference between 32 batches and all in validation accuracy, in points, with its 95%
confidence interval over the seeds (Student's t).

    python benchmarks/batch_norm.py [--images 20000] [--epochs 3] [--rounds 5] [--data-dir FOLDER]
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

from fresh_seeds import interval

from lightning_tricks import ConvNet, Task, Tricks, train
from lightning_tricks.surgery import batch_norm as gathering

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from image_data import fashion_mnist


def convnet(tricks):
    """Return the network."""
    return ConvNet(depth=2, width=16).build((1, 28, 28), 10)


def measured(task, averaging, batches, seed):
    """Return the seconds of a trial and its validation accuracy in points."""
    gathering.REFRESH_BATCHES = batches
    gathering.REFRESH_BYTES = 2**40
    start = time.perf_counter()
    result = train(task, Tricks(averaging=averaging), seed)
    return time.perf_counter() - start, 100 * result.score


def main() -> None:
    """Train in turns, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data-dir")
    given = parser.parse_args()
    data = fashion_mnist(given.data_dir, train=given.images)
    task = Task("batch_norm", data, convnet, epochs=given.epochs)
    ratios: dict[str, list[float]] = {"32 batches": [], "the whole split": []}
    apart = []
    measured(task, "none", 32, 0)  # warm-up: loads and compiles
    for seed in range(given.rounds):
        plain, _ = measured(task, "none", 32, seed)
        some, some_score = measured(task, "ema", 32, seed)
        whole, whole_score = measured(task, "ema", 10**9, seed)
        ratios["32 batches"].append(some / plain)
        ratios["the whole split"].append(whole / plain)
        apart.append(some_score - whole_score)
    for name, found in ratios.items():
        low, high = min(found), max(found)
        print(
            f"an average with statistics from {name} takes {statistics.median(found):.2f} times the "
            f"seconds of training without one (median of {len(found)}; {low:.2f} to {high:.2f})"
        )
    print(f"validation accuracy with 32 batches minus that with all: {interval(apart)} points")


if __name__ == "__main__":
    main()
