"""Which training tricks do ResNet-18 and GoogLeNet need on CIFAR-10, and which of the two is better?

    python studies/cifar10.py    # made for GPUs: one trial takes about an hour on two cores

The images come from `--data-dir` (the pickled batches of the Python version) or from a download.
"""

import sys

from lightning_tricks import main


def backbone(tricks):
    """Return the network of a recipe, for 32×32 pixels and ten classes."""
    from lightning_tricks import Torchvision

    return Torchvision(name=tricks.network).build(inputs=(3, 32, 32), outputs=10)


def task(data_dir: str | None = None):
    """Return the task: 45,000 images to train on, 5,000 validate, 10,000 test."""
    # Imported here, so that a mistyped flag is reported before torch is imported.
    from image_data import cifar10
    from recipes import Cifar10Tricks

    from lightning_tricks import Task

    return Task("cifar10", cifar10(data_dir), backbone, Cifar10Tricks, epochs=30)


if __name__ == "__main__":
    sys.exit(main(task, n_trials=50, flags={"--data-dir": "the folder with CIFAR-10's batches"}))
