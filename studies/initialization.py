"""How does the signal change through 20 layers, for each initialization and activation?

With weights of N(0, 1) the signal explodes, with N(0, 1/n) it vanishes, and with a standard deviation of
1/√n it stays. The last holds for linear layers only: ReLU needs √(2/n).

    python studies/initialization.py [--depth 20] [--width 256] [--figure initialization.png]
"""

import argparse
import sys

from figures import at_least, figure

ACTIVATIONS = {"linear": "Identity", "tanh": "Tanh", "relu": "ReLU"}


def signal(initialization: str, activation: str, depth: int, width: int) -> list[float]:
    """Return the standard deviation of the outputs of each weighted layer, for inputs of N(0, 1)."""
    # Slow imports, here and in `main`, wait until the arguments are read.
    import torch
    from torch import nn

    from lightning_tricks import Tricks
    from lightning_tricks.space.trick import stages

    torch.manual_seed(0)
    activate = getattr(nn, ACTIVATIONS[activation])
    layers = [[nn.Linear(width, width), activate()] for _ in range(depth + 1)]
    network = nn.Sequential(*(layer for pair in layers for layer in pair))
    stages(Tricks)["initialization"][initialization]().apply(network)
    found, values = [], torch.randn(1024, width)
    with torch.no_grad():
        for layer in list(network)[: 2 * depth]:
            values = layer(values)
            if isinstance(layer, nn.Linear):
                found.append(float(values.std()))
    return found


def main() -> None:
    """Print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--depth", type=at_least(1), default=20)
    parser.add_argument("--width", type=at_least(2), default=256)
    parser.add_argument("--figure", type=figure, default="initialization.png")
    given = parser.parse_args()

    import matplotlib.pyplot as plt

    from lightning_tricks import Tricks
    from lightning_tricks.space.trick import stages

    kinds = list(stages(Tricks)["initialization"])
    drawing, axes = plt.subplots(1, len(ACTIVATIONS), figsize=(13, 4), sharey=True)
    print(f"standard deviation of the outputs of layer {given.depth}, for inputs of N(0, 1)")
    print(f"{'':16}" + "".join(f"{name:>12}" for name in ACTIVATIONS))
    for kind in kinds:
        row = []
        for axis, activation in zip(axes, ACTIVATIONS, strict=True):
            found = signal(kind, activation, given.depth, given.width)
            row.append(found[-1])
            axis.semilogy(range(1, given.depth + 1), found, label=kind)
            axis.set(title=activation, xlabel="layer")
        print(f"{kind:16}" + "".join(f"{value:12.2g}" for value in row))
    axes[0].set_ylabel("standard deviation")
    axes[-1].legend(fontsize="small")
    drawing.tight_layout()
    drawing.savefig(given.figure)
    print(f"the figure is in {given.figure}")


if __name__ == "__main__":
    sys.exit(main())
