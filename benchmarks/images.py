"""Training steps per second on Fashion-MNIST: ours against torchvision's reference recipe.

- ours: `TricksModule` in Lightning's Trainer; bytes on the device, augmented there batch by batch.
- torchvision: what its references/classification/train.py does: a data set of PIL images, transforms for
  each image, a `DataLoader` with worker processes, a plain loop that reads loss and accuracy each step.
- bare: the same network, optimizer and batch in a plain loop over tensors, without augmentation.

The first two pad by 4, crop and mirror. All standardize and use SGD with momentum, with the same batch
size and precision. Each runs in its own process, in turns. Besides steps per second it prints the share
of the floating-point operations per second that a large matrix product reaches on the device, and the
peak memory of the process (on a GPU, of the device).

    python benchmarks/images.py [--rounds 3] [--images 6400] [--batch 128] [--precision 32|bf16]
"""

import argparse
import gzip
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import torchvision
from torch.utils.data import DataLoader, Subset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2

from lightning_tricks import ConvNet, ImageTricks, Torchvision, TricksModule
from lightning_tricks.flavors import STANDALONE
from lightning_tricks.task.quiet import silent_trainer

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
import image_data

NETWORKS = {"convnet": ConvNet(depth=2, width=16), "resnet18": Torchvision(name="resnet18")}
MEAN, STD = 0.286, 0.353
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TRICKS = ImageTricks.parse(
    {
        **ImageTricks.plain().model_dump(),
        "normalization": {"kind": "own"},
        "augmentation": {"kind": "flip_crop"},
        "scaling": {"kind": "standardize"},
        "optimizer": {"kind": "torch_momentum", "lr": 0.02},
    }
)


def network(name):
    """Return a new network."""
    return NETWORKS[name].build((1, 28, 28), 10)


def ours(name, given):
    """Return the steps per second of our module in Lightning's Trainer."""
    data = image_data.fashion_mnist(given.data_dir, train=given.images, batch_size=given.batch)
    times = []

    class Clock(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            _wait()
            times.append(time.perf_counter())

        def on_train_end(self, trainer, pl_module):
            _wait()
            times.append(time.perf_counter())

    trainer = silent_trainer(
        STANDALONE,
        max_epochs=given.epochs + 1,
        callbacks=[Clock()],
        limit_val_batches=0,
        logger=False,
        precision="bf16-mixed" if given.precision == "bf16" else "32-true",
    )
    module = TricksModule(network(name), TRICKS)
    module.logs_training = False
    trainer.fit(module, datamodule=data)
    steps = trainer.global_step / (given.epochs + 1) * given.epochs
    return steps / (times[-1] - times[1])  # the first epoch warms up


def loop(name, batches, given):
    """Return the steps per second of a plain loop; `batches()` yields the batches of an epoch."""
    model = network(name).to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    low = given.precision == "bf16"
    for epoch in range(given.epochs + 1):
        if epoch == 1:
            _wait()
            start, steps = time.perf_counter(), 0
        for inputs, targets in batches():
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=low):
                outputs = model(inputs)
                loss = F.cross_entropy(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if given.path == "torchvision":  # its script prints both
                loss.item()
                (outputs.argmax(1) == targets).float().mean().item()
            if epoch:
                steps += 1
    _wait()
    return steps / (time.perf_counter() - start)


def theirs(name, given):
    """Return the steps per second of torchvision's recipe."""
    with tempfile.TemporaryDirectory() as root:
        raw = Path(root, "FashionMNIST", "raw")
        raw.mkdir(parents=True)
        for path in Path(given.data_dir or image_data.DEBIAN).glob("*ubyte*"):
            content = path.read_bytes()
            packed = path.suffix == ".gz"
            Path(raw, path.name.removesuffix(".gz")).write_bytes(
                gzip.decompress(content) if packed else content
            )
        transform = v2.Compose(
            [
                v2.RandomCrop(28, padding=4),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.ToDtype(torch.float, scale=True),
                v2.Normalize((MEAN,), (STD,)),
            ]
        )
        dataset = torchvision.datasets.FashionMNIST(root, transform=transform)
        loader = DataLoader(
            Subset(dataset, range(given.images)),
            given.batch,
            shuffle=True,
            num_workers=given.loaders,
            pin_memory=DEVICE.type == "cuda",
            persistent_workers=given.loaders > 0,
        )

        def batches():
            for inputs, targets in loader:
                yield inputs.to(DEVICE, non_blocking=True), targets.to(DEVICE, non_blocking=True)

        return loop(name, batches, given)


def bare(name, given):
    """Return the steps per second of a plain loop over tensors."""
    split = image_data.fashion_mnist(given.data_dir, train=given.images).splits["train"]
    inputs, targets = (part.to(DEVICE) for part in split)

    def batches():
        for index in torch.randperm(len(targets), device=DEVICE).split(given.batch):
            yield (inputs[index].float() / 255 - MEAN) / STD, targets[index]

    return loop(name, batches, given)


def peak():
    """Return the floating-point operations per second of a large matrix product."""
    size = 8192 if DEVICE.type == "cuda" else 2048
    kind = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
    matrix = torch.randn(size, size, device=DEVICE, dtype=kind)
    best = 0.0
    for _ in range(5):
        _wait()
        start = time.perf_counter()
        matrix @ matrix
        _wait()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def operations(name, batch):
    """Return the floating-point operations of a step: forward and backward."""
    counter = FlopCounterMode(display=False)
    with counter:
        network(name)(torch.randn(batch, 1, 28, 28)).sum().backward()
    return counter.get_total_flops()


def _wait():
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def measured(path, name, given):
    """Return a path's steps per second and peak memory in MB, measured in its own process."""
    command = [sys.executable, __file__, "--path", path, "--network", name]
    for flag in ("images", "batch", "epochs", "loaders", "precision"):
        command += [f"--{flag}", str(getattr(given, flag))]
    if given.data_dir:
        command += ["--data-dir", given.data_dir]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(output.splitlines()[-1])


def main():
    """Measure all in turns and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=6400)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=2, help="number of timed epochs")
    parser.add_argument("--loaders", type=int, default=2, help="worker processes of the DataLoader")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    parser.add_argument("--network", choices=list(NETWORKS))
    parser.add_argument("--path", choices=["ours", "torchvision", "bare"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.path:
        path = {"ours": ours, "torchvision": theirs, "bare": bare}[given.path]
        speed = path(given.network, given)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if DEVICE.type == "cuda":
            memory = torch.cuda.max_memory_allocated() / 2**20
        print(json.dumps([speed, memory]))
        return
    top = peak()
    print(f"device {DEVICE}, a matrix product reaches {top / 1e12:.2f} TFLOP/s; batch {given.batch}")
    for name in [given.network] if given.network else list(NETWORKS):
        work = operations(name, given.batch)
        speedups, memories = [], []
        for number in range(1, given.rounds + 1):
            found = {path: measured(path, name, given) for path in ("ours", "torchvision", "bare")}
            speeds = {path: speed for path, (speed, _) in found.items()}
            speedups.append(speeds["ours"] / speeds["torchvision"])
            memories.append(found["ours"][1] / found["bare"][1])
            line = "  ".join(f"{path} {speed:7.2f}" for path, speed in speeds.items())
            shares = "  ".join(f"{path} {speed * work / top:.0%}" for path, speed in speeds.items())
            print(f"{name:9} round {number}: steps/s {line}   of the peak {shares}", flush=True)
        print(
            f"{name}: {statistics.median(speedups):.2f} times torchvision's steps per second, "
            f"{statistics.median(memories):.2f} times the memory of a bare loop "
            f"(median of {given.rounds})"
        )


if __name__ == "__main__":
    main()
