"""Which training tricks does a small convnet, or a ResNet-18, need on Fashion-MNIST?

    python studies/fashion_mnist.py                                     # a convnet, 10,000 images
    python studies/fashion_mnist.py --network resnet18 --images 55000   # with a GPU

The images come from `--data-dir`, from Debian's package `dataset-fashion-mnist` or from a download.
"""

import sys

from lightning_tricks import InputError, main

NETWORKS = ["convnet", "resnet18"]
FLAGS = {
    "--data-dir": "the folder with the four files of Fashion-MNIST",
    "--network": "convnet or resnet18",
    "--images": "number of training images, up to 55000 (default: 10000)",
}


def task(data_dir: str | None = None, network: str | None = None, images: str | None = None):
    """Return the task: images of (1, 28, 28) bytes, 5,000 to validate and 10,000 to test."""
    if network not in (None, *NETWORKS):
        raise InputError(f"--network must be one of {NETWORKS} (got {network!r})")
    if images is not None and not (images.isdecimal() and 100 <= int(images) <= 55_000):
        raise InputError(f"--images must be a whole number from 100 to 55000 (got {images!r})")

    # Imported here, so that a mistyped flag is reported before torch is imported.
    from image_data import fashion_mnist
    from recipes import ResNetTricks

    from lightning_tricks import ConvNet, ImageTricks, Task, Torchvision

    residual = network == "resnet18"
    shape = Torchvision(name="resnet18") if residual else ConvNet(depth=2, width=16)
    return Task(
        name=f"fashion-{network or 'convnet'}",
        data=fashion_mnist(data_dir, train=int(images or 10_000)),
        backbone=lambda tricks: shape.build(inputs=(1, 28, 28), outputs=10),
        tricks=ResNetTricks if residual else ImageTricks,
        epochs=8,
    )


if __name__ == "__main__":
    sys.exit(main(task, n_trials=30, flags=FLAGS))
