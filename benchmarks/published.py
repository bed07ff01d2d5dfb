"""Published results, compared with ours.

- A sigmoid LeNet on Fashion-MNIST, 10 epochs of SGD in batches of 256, Glorot's weights: "Dive into Deep
  Learning" prints a test accuracy of .782 without batch norm (η = 0.9) and .858 with it (η = 1.0).
- Torchvision's ResNet-18 takes one step with every norm; all parameters must stay finite and move.

    python benchmarks/published.py [--data-dir FOLDER] [--seeds 1] [--epochs 10]
"""

import argparse
import statistics
import sys
from pathlib import Path

import torch
from fresh_seeds import FIRST_SEED, test_accuracy
from torch import nn

from lightning_tricks import Task, Torchvision, Tricks, TricksModule
from lightning_tricks.space.trick import stages

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from image_data import fashion_mnist


def lenet(tricks):
    """Return LeNet with sigmoids and average pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.Sigmoid(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Sigmoid(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.Sigmoid(),
        nn.Linear(120, 84),
        nn.Sigmoid(),
        nn.Linear(84, 10),
    )


def recipe(norm, lr):
    """Return the book's recipe: every trick off except these."""
    return Tricks.parse(
        {
            **Tricks.plain().model_dump(),
            "scaling": {"kind": "unit"},
            "initialization": {"kind": "glorot_uniform"},
            "normalization": {"kind": norm},
            "optimizer": {"kind": "sgd", "lr": lr},
        }
    )


def step(kind):
    """Take a step of ResNet-18 with a norm; return whether all is finite, and the share that moved."""
    torch.manual_seed(0)
    backbone = Torchvision(name="resnet18").build((3, 64, 64), 10)
    module = TricksModule(backbone, Tricks(scaling={"kind": "none"}, normalization={"kind": kind}))
    before = [p.detach().clone() for p in module.parameters()]
    groups = module.tricks.weight_decay.groups(module.backbone)
    optimizer = module.tricks.optimizer.build(groups, module.backbone)
    loss = module.learned_loss((torch.randn(8, 3, 64, 64), torch.arange(8)))
    loss.backward()
    optimizer.step()
    after = list(module.parameters())
    finite = all(bool(torch.isfinite(p).all()) for p in after)
    moved = sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) / len(after)
    return finite, moved


def main():
    """Print our results next to theirs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    for kind in stages(Tricks)["normalization"]:
        finite, moved = step(kind)
        print(
            f"resnet18, norm {kind:7} finite: {finite}, parameters that moved: {moved:.0%}", flush=True
        )
    data = fashion_mnist(given.data_dir, train=60_000, batch_size=256)
    task = Task("lenet", data, lenet, epochs=given.epochs)
    for name, norm, lr, theirs in (("no norm", "none", 0.9, 0.782), ("batch norm", "batch", 1.0, 0.858)):
        ours = [test_accuracy(task, recipe(norm, lr), FIRST_SEED + s) / 100 for s in range(given.seeds)]
        print(f"sigmoid LeNet, {name:10}  published {theirs:.3f}  here {statistics.mean(ours):.3f}")


if __name__ == "__main__":
    main()
