"""Which training tricks does a small network need on 178 wines? With so few, all results are doubtful.

Run it without arguments; it takes some minutes on two cores. `--help` lists the options.
"""

import sys

from lightning_tricks import main


def network(tricks):
    """Return the network of a recipe, for 13 measurements and three cultivars."""
    return tricks.network.build(inputs=(13,), outputs=3)


def task():
    """Return the task: 178 wines, a fifth each to validate and test."""
    # Imported here, so that a mistyped flag is reported before torch is imported.
    from recipes import TableTricks
    from sklearn.datasets import load_wine

    from lightning_tricks import InMemoryData, Task

    data = InMemoryData.from_arrays(*load_wine(return_X_y=True), batch_size=16)
    return Task(name="wine", data=data, backbone=network, tricks=TableTricks, epochs=20)


if __name__ == "__main__":
    sys.exit(main(task, n_trials=40))
