"""What training K trials as one program gains over one at a time through Lightning.

Compares trainings per second of one recipe with K seeds, including setup and validation, at K = 2, 4, …
up to `--most`, with the same trainings one after the other through Lightning, in turns. With
`--processes` it also compares K processes that share the device, with one training each. Networks: the
two-layer MLP of width 128 on digits, the convnet of `studies/fashion_mnist.py`, and torchvision's
ResNet-18 at 32×32. For each network it first prints two limits of a step on this device: its
floating-point operations at the rate of a large matrix product, and the optimizer's reads and writes at
the rate of a large copy.

    python benchmarks/fusion.py [mlp convnet resnet18] [--most 16] [--processes]
"""

import argparse
import statistics
import subprocess
import sys
import time
import warnings

import torch
from sklearn.datasets import load_digits
from torch.utils.flop_counter import FlopCounterMode

from lightning_tricks import MLP, ConvNet, InMemoryData, Split, Task, Torchvision, Tricks, train
from lightning_tricks.training.group_size import MOST, GroupSize
from lightning_tricks.training.runner import Runner, device_of
from lightning_tricks.trial.job import Job

TURNS = 3
ADAM_NUMBERS = 11
"""Reads and writes per weight of Adam with a decay and clipping, including the gradient."""


def images(count, shape, classes=10):
    """Return noise in place of images: the contents make no difference to the time."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(256, (count, *shape), generator=generator, dtype=torch.uint8)
    return Split(inputs, torch.arange(count) % classes)


def mlp():
    """Return the MLP on digits."""
    data = InMemoryData.from_arrays(*load_digits(return_X_y=True), batch_size=64)
    return Task("mlp", data, lambda tricks: MLP(depth=2, width=128).build((64,), 10), epochs=4)


def convnet():
    """Return the convnet, with 1,024 images an epoch."""
    data = InMemoryData(images(1024, (1, 28, 28)), images(256, (1, 28, 28)), batch_size=128)
    shape = ConvNet(depth=2, width=16)
    return Task("convnet", data, lambda tricks: shape.build((1, 28, 28), 10), epochs=2)


def resnet18():
    """Return the ResNet-18, with 256 images an epoch."""
    data = InMemoryData(images(256, (3, 32, 32)), images(64, (3, 32, 32)), batch_size=64)
    shape = Torchvision(name="resnet18")
    return Task("resnet18", data, lambda tricks: shape.build((3, 32, 32), 10), epochs=1)


NETWORKS = {"mlp": mlp, "convnet": convnet, "resnet18": resnet18}


def wait():
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(action):
    """Return the seconds that a call takes."""
    wait()
    start = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - start


def fused(task, count):
    """Train as one program; return the seconds per training, or None if it was not fused."""
    runner = Runner(task)
    jobs = [Job(number, Tricks(), number) for number in range(count)]
    took = seconds(lambda: runner.train(jobs, lambda *unused: False, lambda *unused: None))
    if why := runner.refusals.of(task.reference()):
        print(f"{'':9}not fused: {why}")
        return None
    return took / count


def in_processes(name, count):
    """Train in separate processes at the same time; return the seconds per training, without starts."""
    program = f"import fusion; fusion.serve({name!r})"
    command = [sys.executable, "-c", program]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, cwd=sys.path[0], **streams) for _ in range(count)]
    for worker in workers:
        worker.stdout.readline()
    start = time.perf_counter()
    for worker in workers:
        print("go", file=worker.stdin, flush=True)
    for worker in workers:
        worker.wait()
    return (time.perf_counter() - start) / count


def serve(name):
    """Warm up, then train once when told to."""
    task = NETWORKS[name]()
    train(task, Tricks(), 0)
    print("ready", flush=True)
    sys.stdin.readline()
    train(task, Tricks(), 1)
    wait()


def limits(task):
    """Print the lower limits of the time of one network's step on this device."""
    device = device_of(task)
    network = task.module(Tricks()).backbone.to(device)
    size = task.data.batch_size
    inputs = task.data.splits["train"].inputs[:size].float().to(device)
    with FlopCounterMode(display=False) as counter:
        network(inputs).sum().backward()
    large = torch.randn(2048, 2048, device=device)
    flat = torch.randn(2**25, device=device)
    rate = 2 * 2048**3 / min(seconds(lambda: large @ large) for _ in range(5))
    speed = 2 * flat.nbytes / min(seconds(flat.clone) for _ in range(5))
    weights = sum(parameter.numel() for parameter in network.parameters())
    print(
        f"{task.name}: a step's {counter.get_total_flops() / 1e6:.0f} million operations take "
        f"{1e6 * counter.get_total_flops() / rate:.0f} µs at {rate / 1e9:.0f} GFLOP/s, the optimizer's "
        f"{4e-6 * ADAM_NUMBERS * weights:.2f} MB {4e6 * ADAM_NUMBERS * weights / speed:.0f} µs at "
        f"{speed / 1e9:.0f} GB/s"
    )


def measure(name, most, processes):
    """Print the gain of each number of trainings at a time."""
    task = NETWORKS[name]()
    limits(task)
    steps = task.epochs * len(task.data.train_dataloader())
    train(task, Tricks(), 0)
    count = 2
    while count <= most:
        ratios, each = [], None
        for turn in range(TURNS + 1):
            alone = seconds(lambda: train(task, Tricks(), 1))
            each = fused(task, count)
            if each is None:
                return
            if turn:  # the first is a warm-up
                ratios.append(alone / each)
        beside = f", {in_processes(name, count) / each:.2f} times K processes" if processes else ""
        print(
            f"{name:9}K = {count:3}: {statistics.median(ratios):5.2f} times one at a time "
            f"({min(ratios):.2f} to {max(ratios):.2f}){beside}; {1e6 * each / steps:.0f} µs a step and "
            "trial, all included",
            flush=True,
        )
        count *= 2
    print(f"{name:9}auto chooses K = {GroupSize().grown(MOST, Runner(task).seconds).best}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--most", type=int, help="the largest K (default: 16; with a GPU 512)")
    parser.add_argument("--processes", action="store_true", help="compare K processes, too")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    for chosen in given.networks or NETWORKS:
        measure(chosen, given.most or (512 if torch.cuda.is_available() else 16), given.processes)
