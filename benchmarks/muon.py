"""How long a step of Muon takes, against `torch.optim.Muon`, for the matrices of some networks.

    python benchmarks/muon.py

Both take turns, several times. The ratio is the median of torch's time over ours.
"""

import statistics
import time

import torch
from torch import nn

from lightning_tricks.tricks.optimizers.muon import Muon, MuonOptimizer

NETWORKS = {
    "MLP, 2 hidden layers of 64": [(64, 64)] * 2,
    "transformer, 4 layers of 128": [(128, 128), (384, 128), (512, 128), (128, 512)] * 4,
    "ResNet-18, last stage": [(512, 2304), (512, 4608), (512, 4608), (512, 4608)],
}
ROUNDS = 5


def seconds(optimizer, steps):
    """Return how long some steps take."""
    begin = time.perf_counter()
    for _ in range(steps):
        optimizer.step()
    return time.perf_counter() - begin


def main():
    """Print a row for each network."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| matrices of | ours, ms | torch's, ms | ratio |\n|---|---|---|---|")
    for name, shapes in NETWORKS.items():
        matrices = [nn.Parameter(torch.randn(shape)) for shape in shapes]
        for matrix in matrices:
            matrix.grad = torch.randn_like(matrix)
        ours = MuonOptimizer([{"params": matrices}], Muon(), {id(matrix) for matrix in matrices})
        theirs = torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw")
        seconds(ours, 1), seconds(theirs, 1)
        steps = max(1, int(0.2 / seconds(ours, 1)))
        pairs = [(seconds(ours, steps), seconds(theirs, steps)) for _ in range(ROUNDS)]
        mine, torchs = (statistics.median(column) / steps * 1000 for column in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        print(f"| {name} | {mine:.1f} | {torchs:.1f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
