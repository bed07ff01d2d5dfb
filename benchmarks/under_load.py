"""How long does a study take on a busy machine, where small networks wait for their own threads?

Other programs keep cores busy while this process runs a study of digits: with torch's default number of
threads, and with our measured best number. Both take turns, several times. Prints the median seconds,
and the ratio of each turn.

    python benchmarks/under_load.py [--busy 0 1 2] [--trials 6] [--turns 3]
"""

import argparse
import contextlib
import multiprocessing
import statistics
import tempfile
import time

import torch
from sklearn.datasets import load_digits

from lightning_tricks import MLP, InMemoryData, Task, create_study, optimize


def spin():
    """Keep a core busy."""
    while True:
        sum(range(100_000))


def task():
    """Return the task: an MLP on digits, 5 epochs per trial."""
    data = InMemoryData.from_arrays(*load_digits(return_X_y=True), batch_size=64)
    shape = MLP(depth=2, width=128)
    return Task("busy", data, lambda tricks: shape.build(inputs=(64,), outputs=10), epochs=5)


def seconds(fuse, trials):
    """Return the seconds that a study takes."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        start = time.perf_counter()
        options = {"workers": "inline", "fuse": fuse, "progress": False}
        optimize(create_study("busy", storage=None), task(), n_trials=trials, **options)
        return time.perf_counter() - start


def main():
    """Print a line for each number of busy programs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="number of busy programs")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        seconds("off", 2)  # warm-up: loads and compiles
    print(f"{torch.get_num_threads()} threads by torch, trials: {given.trials}")
    print("busy programs   torch's own   measured   torch's / measured, of each turn")
    for count in given.busy:
        beside = [multiprocessing.Process(target=spin, daemon=True) for _ in range(count)]
        for program in beside:
            program.start()
        taken = {"off": [], "auto": []}
        for _ in range(given.turns):
            for fuse, found in taken.items():
                found.append(seconds(fuse, given.trials))
        for program in beside:
            program.kill()
        ratios = [alone / ours for alone, ours in zip(taken["off"], taken["auto"], strict=True)]
        medians = [statistics.median(found) for found in taken.values()]
        shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{count:13}   {medians[0]:9.1f} s   {medians[1]:6.1f} s   {shown}", flush=True)


if __name__ == "__main__":
    main()
