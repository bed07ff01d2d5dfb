"""How does the gradient change through 20 layers, for each initialization and norm?

The slope of a sigmoid is a quarter at most, so each layer takes three quarters of the gradient. No
initialization here makes up for that; batch norm does, layer norm hardly. With ReLU the gradient arrives
with He's initialization, and does not with N(0, 1/n).

    python studies/vanishing_gradients.py [--depth 20] [--width 256] [--figure gradients.png]
"""

import argparse
import sys

from figures import at_least, figure

ACTIVATIONS = {"sigmoid": "Sigmoid", "relu": "ReLU"}
INITIALIZATIONS = ["torch", "gaussian", "lecun_normal", "glorot_normal", "he_normal"]
NORMS = ["none", "batch", "layer"]


def gradients(initialization: str, norm: str, activation: str, depth: int, width: int) -> list[float]:
    """Return the gradient norm of the weights of each hidden layer, at the start of training."""
    # Slow imports, here and in `main`, wait until the arguments are read.
    import torch
    import torch.nn.functional as F
    from torch import nn

    from lightning_tricks import Tricks, TricksModule

    torch.manual_seed(0)
    activate = getattr(nn, ACTIVATIONS[activation])
    layers = [[nn.Linear(width, width), activate()] for _ in range(depth)]
    network = nn.Sequential(*(layer for pair in layers for layer in pair), nn.Linear(width, 10))
    recipe = {"initialization": {"kind": initialization}, "normalization": {"kind": norm}}
    plain = Tricks.plain().model_dump()
    module = TricksModule(network, Tricks.parse({**plain, **recipe}))
    loss = F.cross_entropy(module(torch.randn(512, width)), torch.arange(512) % 10)
    loss.backward()
    hidden = [layer for layer in module.backbone if isinstance(layer, nn.Linear)][:-1]
    return [float(layer.weight.grad.norm()) for layer in hidden]


def main() -> None:
    """Print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--depth", type=at_least(1), default=20)
    parser.add_argument("--width", type=at_least(2), default=256)
    parser.add_argument("--figure", type=figure, default="gradients.png")
    given = parser.parse_args()

    import matplotlib.pyplot as plt

    drawing, axes = plt.subplots(1, len(ACTIVATIONS), figsize=(11, 4), sharey=True)
    print(f"gradient norm of the first layer's weights, as a share of layer {given.depth}'s")
    print(f"{'':32}" + "".join(f"{name:>10}" for name in ACTIVATIONS))
    for norm in NORMS:
        for initialization in INITIALIZATIONS:
            row = []
            for axis, activation in zip(axes, ACTIVATIONS, strict=True):
                found = gradients(initialization, norm, activation, given.depth, given.width)
                row.append(found[0] / found[-1] if found[-1] else 0.0)
                style = {"none": "-", "batch": "--", "layer": ":"}[norm]
                axis.semilogy(
                    range(1, given.depth + 1), found, style, label=f"{initialization}, norm {norm}"
                )
                axis.set(title=activation, xlabel="layer")
            name = f"{initialization}, norm {norm}"
            print(f"{name:32}" + "".join(f"{value:10.1e}" for value in row))
    axes[0].set_ylabel("gradient norm")
    axes[-1].legend(fontsize="x-small")
    drawing.tight_layout()
    drawing.savefig(given.figure)
    print(f"the figure is in {given.figure}")


if __name__ == "__main__":
    sys.exit(main())
