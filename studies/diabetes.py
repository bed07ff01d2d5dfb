"""Which training tricks does a small network need to predict a number, the course of 442 diabetics?

Run it without arguments; it takes some minutes on two cores. `--help` lists the options.
"""

import sys

from lightning_tricks import main


def network(tricks):
    """Return the network of a recipe, for ten measurements and one number."""
    return tricks.network.build(inputs=(10,), outputs=1)


def task():
    """Return the task: 442 patients, a fifth each to validate and test; targets have the std 1."""
    # Imported here, so that a mistyped flag is reported before torch is imported.
    import torch.nn.functional as F
    from recipes import TableTricks
    from sklearn.datasets import load_diabetes

    from lightning_tricks import InMemoryData, Task

    inputs, targets = load_diabetes(return_X_y=True)
    targets = (targets - targets.mean()) / targets.std()
    data = InMemoryData.from_arrays(inputs, targets, regression=True, batch_size=32)
    return Task(
        name="diabetes",
        data=data,
        backbone=network,
        tricks=TableTricks,
        epochs=20,
        loss=F.mse_loss,
        metrics={},
        monitor="val/loss",
        mode="min",
    )


if __name__ == "__main__":
    sys.exit(main(task, n_trials=40))
