"""Which training tricks does a small network need on scikit-learn's digits?

Run it without arguments; it takes some minutes on two cores. `--help` lists the options.
"""

import sys

from lightning_tricks import main


def network(tricks):
    """Return the network of a recipe, for 8×8 pixels and ten digits."""
    return tricks.network.build(inputs=(64,), outputs=10)


def task():
    """Return the task: 1797 images, a fifth each to validate and test."""
    # Imported here, so that a mistyped flag is reported before torch is imported.
    from recipes import DigitsTricks
    from sklearn.datasets import load_digits

    from lightning_tricks import InMemoryData, Task

    data = InMemoryData.from_arrays(*load_digits(return_X_y=True), batch_size=64)
    return Task(name="digits", data=data, backbone=network, tricks=DigitsTricks, epochs=20)


if __name__ == "__main__":
    sys.exit(main(task, n_trials=40))
