"""What each trick is worth alone, on Fashion-MNIST: plain with that one trick against plain.

Plain is every trick off, but for inputs in [0, 1], as torchvision hands images out: on raw bytes plain
does not train at all. Runs are paired by seed: the same initial draw and order of samples. Printed are
the mean difference in test accuracy over the seeds, in points, and its 95 % confidence interval
(Student's t). The learning rate of each optimizer is its default; nothing is tuned for any trick.

    python benchmarks/one_trick.py [--images 10000] [--epochs 6] [--seeds 5] [--data-dir FOLDER]
"""

import argparse
import re
import statistics
import sys
import warnings
from pathlib import Path

import torch
from fresh_seeds import FIRST_SEED, interval, test_accuracy
from joblib import Parallel, delayed

from lightning_tricks import ConvNet, ImageTricks, Task
from lightning_tricks.space.trick import stages
from lightning_tricks.task.backbones import Residual

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from image_data import fashion_mnist

RESIDUAL = ("zero_gamma", "stochastic_depth")
"""Stages that need residual branches: measured against plain on a network that has some."""


def convnet(tricks):
    """Return the network of the study."""
    return ConvNet(depth=2, width=16).build((1, 28, 28), 10)


def residual(tricks):
    """Return the same with a residual branch in each stage, which ends in its norm."""
    nn = torch.nn
    layers, wide = [], 1
    for width in (16, 32):
        norm = nn.BatchNorm2d(width)
        branch = Residual(nn.Conv2d(width, width, 3, padding=1, bias=False), norm)
        layers += [nn.Conv2d(wide, width, 3, padding=1), nn.ReLU(), branch, nn.ReLU(), nn.MaxPool2d(2)]
        wide = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, 10))


def scored(task, changes, seed):
    """Return the test accuracy of plain with some changes."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    plain = {**ImageTricks.plain().model_dump(), "scaling": {"kind": "unit"}}
    return test_accuracy(task, ImageTricks.parse({**plain, **changes}), FIRST_SEED + seed)


def paper(stage, kind):
    """Return the paper that a trick's docstring names, the first one."""
    option = stages(ImageTricks).get(stage, {}).get(kind)
    found = re.search(r"\(([^()]*?\b(?:19|20)\d\d)[^()]*\)", option.__doc__ or "") if option else None
    return " ".join(found[1].split()) if found else ""


def main():
    """Train everything, and print a line for each trick."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    data = fashion_mnist(given.data_dir, train=given.images)
    tasks = {
        "convnet": Task("one", data, convnet, ImageTricks, epochs=given.epochs),
        "residual": Task("one", data, residual, ImageTricks, epochs=given.epochs),
    }
    own = {"normalization": {"kind": "own"}}
    runs = {("convnet", "plain", ""): {}, ("residual", "plain", ""): own}
    for stage, options in stages(ImageTricks).items():
        for kind, option in options.items():
            if stage == "scaling" and kind == "unit":
                continue  # plain has it
            if not option.neutral or stage == "scaling":
                network = "residual" if stage in RESIDUAL else "convnet"
                more = own if network == "residual" else {}
                runs[network, stage, kind] = {**more, stage: {"kind": kind}}
    jobs = [(key, seed) for key in runs for seed in range(given.seeds)]
    values = Parallel(n_jobs=-1, verbose=1)(
        delayed(scored)(tasks[key[0]], runs[key], seed) for key, seed in jobs
    )
    found = {key: [] for key in runs}
    for (key, _), value in zip(jobs, values, strict=True):
        found[key].append(value)
    print("| stage | kind | paper | test accuracy, % | worth, points |")
    print("|---|---|---|---|---|")
    for (network, stage, kind), scores in found.items():
        plain = found[network, "plain", ""]
        worth = "" if stage == "plain" else interval([b - a for a, b in zip(plain, scores, strict=True)])
        name = f"plain, {network}" if stage == "plain" else stage
        print(f"| {name} | {kind} | {paper(stage, kind)} | {statistics.mean(scores):.2f} | {worth} |")


if __name__ == "__main__":
    main()
