"""How much faster the package's own parts are than torch's.

- loader: an epoch of `TensorLoader`, against `DataLoader(sampler=BatchSampler(...), batch_size=None)`
  over the same tensors, which is the fastest way to use torch's loader
- step: one step of Adam with decoupled decay by `FlatOptimizer`, against `torch.optim.AdamW` with
  `foreach=True` and with `fused=True`, for a two-layer MLP, a convnet and a ResNet-18; the ResNet-18's
  group of parameters is too large to join
- dropout: a batch forward and backward through `UniformDropout`, against `nn.Dropout`

Each round measures all sides one after another, in processor time of one thread. The ratios are taken
within each round.

    python benchmarks/own_or_theirs.py [--rounds 7]
"""

import argparse
import statistics
import time

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from lightning_tricks import MLP, ConvNet, Split, Torchvision
from lightning_tricks.data.tensor_loader import TensorLoader
from lightning_tricks.surgery.dropout import UniformDropout
from lightning_tricks.tricks.optimizers.adam import Adam
from lightning_tricks.tricks.optimizers.flat import FlatOptimizer
from lightning_tricks.tricks.weight_decay import DecoupledWeightDecay

STEPS = {"mlp": 200, "convnet": 200, "resnet18": 10}
NETWORKS = {
    "mlp": lambda: MLP().build((64,), 10),
    "convnet": lambda: ConvNet().build((1, 28, 28), 10),
    "resnet18": lambda: Torchvision(name="resnet18").build((3, 32, 32), 10),
}


class Samples(Dataset):
    """A data set of tensors, indexed by a list of positions at once."""

    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split.inputs)

    def __getitem__(self, places):
        return self.split.inputs[places], self.split.targets[places]


def seconds(run):
    """Return the processor time of a call, in seconds."""
    start = time.process_time()
    run()
    return time.process_time() - start


def loaders(samples, width, batch):
    """Return a call for each side that walks an epoch."""
    split = Split(torch.randn(samples, width), torch.arange(samples) % 10)
    ours = TensorLoader(split, batch, shuffle=lambda: 0)
    data = Samples(split)
    theirs = DataLoader(
        data, sampler=BatchSampler(RandomSampler(data), batch, drop_last=False), batch_size=None
    )
    return {"ours": lambda: list(ours), "DataLoader": lambda: list(theirs)}


def steps(name):
    """Return a call for each side that takes some steps."""
    calls = {}
    for side in ("ours", "formula", "foreach", "fused"):
        network = NETWORKS[name]()
        for parameter in network.parameters():
            parameter.grad = torch.randn_like(parameter)
        groups = DecoupledWeightDecay().groups(network)
        if side == "formula":
            optimizer = FlatOptimizer(groups, 2e-3, Adam().update, Adam().direct)
        elif side == "ours":
            optimizer = Adam().build(groups, network)
        else:
            optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, **{side: True})
        optimizer.step()
        calls[side] = lambda o=optimizer, n=STEPS[name]: [o.step() for _ in range(n)]
    return calls


def dropouts(shape):
    """Return a call for each side that runs dropout forward and backward some times."""
    inputs, gradient = torch.randn(shape, requires_grad=True), torch.randn(shape)
    layers = {"ours": UniformDropout(0.3), "torch's": torch.nn.Dropout(0.3)}
    return {
        side: lambda d=layer: [torch.autograd.grad(d(inputs), inputs, gradient) for _ in range(100)]
        for side, layer in layers.items()
    }


def compare(title, calls, rounds):
    """Print the time of the others as a multiple of ours."""
    taken = {side: [] for side in calls}
    for _ in range(rounds):
        for side, call in calls.items():
            taken[side].append(seconds(call))
    ours, *others = taken
    for other in others:
        ratios = sorted(b / a for a, b in zip(taken[ours], taken[other], strict=True))
        middle = statistics.median(ratios)
        spread = f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"{title:28} {other:>10} takes {middle:.2f} times as long {spread}")


def main():
    """Compare everything."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    for samples, width, batch in ((1078, 64, 64), (10_000, 784, 128)):
        title = f"loader, {samples} × {width}, batch {batch}"
        compare(title, loaders(samples, width, batch), rounds)
    for name in NETWORKS:
        compare(f"step, {name}", steps(name), rounds)
    for shape in ((64, 128), (256, 2048)):
        compare(f"dropout, {shape[0]} × {shape[1]}", dropouts(shape), rounds)


if __name__ == "__main__":
    main()
