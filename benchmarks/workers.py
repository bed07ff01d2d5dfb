"""What several workers gain, and how much the one coordinator can handle.

- speed: a study with two workers, against one worker; a trial takes a second or more, and each worker
  has one thread and its own core. The two take turns, and each turn has its ratio. Next to it is the
  gain of two plain PyTorch loops in two processes over one, because cores share caches and memory.
- capacity: a study with simulated workers, which train nothing and report as fast as the coordinator
  can handle. Prints reports and trials per second with 2 to 1000 workers.
- growth: the cost of a trial with 100 and with 5000 trials in such a study.

Simulated studies have 50 epochs per trial, Optuna in a journal file, MLflow in SQLite, the default
sampler and pruner, and the whole search space.

    python benchmarks/workers.py speed [--rounds 3]
    python benchmarks/workers.py capacity [--workers 2 32 1000] [--trials 1000]
    python benchmarks/workers.py growth [--trials 5000]
"""

import argparse
import contextlib
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

import optuna
import torch
from sklearn.datasets import load_digits

from lightning_tricks import MLP, InMemoryData, Space, Split, Task, Tricks, create_study, optimize
from lightning_tricks.search.identity import claim
from lightning_tricks.search.storage.waiting import retrying
from lightning_tricks.study.coordinator import Coordinator
from lightning_tricks.study.folder import StudyFolder
from lightning_tricks.study.progress import Progress
from lightning_tricks.study.session import Setup, session
from lightning_tricks.study.signals import Signals
from lightning_tricks.study.spending import Spending
from lightning_tricks.tracking.mlflow_archive import MLflowArchive
from lightning_tricks.tracking.tracker import Tracker
from lightning_tricks.training.group_size import GroupSize
from lightning_tricks.trial.result import Epoch, Result
from lightning_tricks.workers.base import Ended, Reported, Workers
from lightning_tricks.workers.placement import Placement

EPOCHS = 50


class Simulated(Workers):
    """Workers that train nothing and report a score from a formula for each epoch."""

    def __init__(self, count):
        self.many, self.jobs = count, {}
        self.reports = 0

    @property
    def count(self):
        return self.many

    @property
    def free(self):
        return self.many - len(self.jobs)

    def submit(self, jobs, group_size):
        (job,) = jobs
        self.jobs[job.number] = (job, [])

    def wait(self, callback, seconds):
        """Let every worker report an epoch, or end."""
        for job, epochs in list(self.jobs.values()):
            number = len(epochs)
            lr = job.tricks.optimizer.lr
            score = 1 - 0.1 * abs(float(torch.tensor(lr).log10()) + 2) - 0.5 / (number + 1)
            epochs.append(Epoch(number, score, {"val/accuracy": score, "val/loss": -score, "lr": lr}))
            self.reports += 1
            stop = callback(Reported(job.number, epochs[-1]))
            if stop or len(epochs) == EPOCHS:
                del self.jobs[job.number]
                callback(Ended(job.number, Result("complete", epochs, parameters=1), dict))

    def close(self):
        pass


class SimulatedPlacement(Placement):
    """Gives a study simulated workers."""

    made = None

    def create(self, task, interrupted, warn):
        """Make the workers."""
        SimulatedPlacement.made = Simulated(self.workers)
        return self.made


def small_task():
    """Return a task that is never trained."""
    inputs, targets = torch.randn(30, 4), torch.arange(30) % 3
    data = InMemoryData(Split(inputs, targets), Split(inputs, targets))
    return Task("capacity", data, lambda tricks: MLP().build((4,), 3), epochs=EPOCHS)


@contextlib.contextmanager
def simulated(folder, workers):
    """Open a study with simulated workers in a folder; yield its coordinator."""
    task, space = small_task(), Space(Tricks)
    study = create_study("capacity", storage=f"{folder}/optuna.journal", epochs=EPOCHS)
    kept = StudyFolder(Path(folder, "checkpoints"), 3, "max")
    kept.create()
    bar = Progress(1, quiet=True)
    study = optuna.Study(
        study.study_name,
        retrying(study._storage, bar.warn, lambda: False),
        study.sampler,
        study.pruner,
    )
    claim(study, task, space, 0)
    placement = SimulatedPlacement(workers, group_size=GroupSize.of("off"))
    tracker = Tracker(f"sqlite:///{folder}/mlflow.db", study.study_name, bar.warn)
    archive = mlflow_of(tracker, study, task, space)
    given = Setup(
        study=study,
        task=task,
        space=space,
        seed=0,
        placement=placement,
        folder=kept,
        progress=bar,
        signals=Signals(),
        spending=Spending(None),
    )
    with session(given, archive) as own, Coordinator(own) as coordinator:
        yield coordinator


@contextlib.contextmanager
def mlflow_of(tracker, study, task, space):
    """Open MLflow for a study when the session opens its archive."""
    with MLflowArchive(tracker, study, task, space).opened() as archive:
        yield archive


def capacity(counts, trials):
    """Print the reports and trials per second for some numbers of workers."""
    print(f"in a study of {trials} trials")
    print(f"{'workers':>8}  {'reports/s':>9}  {'trials/s':>8}  {'MLflow ends later by':>20}")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder, simulated(folder, count) as own:
            start = time.perf_counter()
            own.run(trials)
            seconds = time.perf_counter() - start
            reports = SimulatedPlacement.made.reports
            later = caught_up(own)
            print(f"{count:8}  {reports / seconds:9.0f}  {trials / seconds:8.1f}  {later:18.0f} s")


def caught_up(coordinator):
    """Wait until MLflow holds everything; return the seconds."""
    start = time.perf_counter()
    assert coordinator.session.archive.flush(3600)
    return time.perf_counter() - start


def growth(workers, trials):
    """Print the cost of a trial as the study grows."""
    with tempfile.TemporaryDirectory() as folder, simulated(folder, workers) as own:
        last, costs = 0, {}
        for upto in itertools.chain((50, 150), range(500, trials + 1, 500)):
            start = time.perf_counter()
            own.run(upto)
            costs[upto] = (time.perf_counter() - start) / (upto - last)
            print(f"trials {last:5} to {upto:5}: {1000 * costs[upto]:6.1f} ms a trial", flush=True)
            last = upto
        caught_up(own)
    print(f"a trial at {last} costs {costs[last] / costs[150]:.2f} times one at 100")


def slow_task(epochs):
    """Return a task whose trials take seconds on one core."""
    data = InMemoryData.from_arrays(*load_digits(return_X_y=True), batch_size=32)
    shape = MLP(depth=2, width=512)
    return Task("speed", data, lambda tricks: shape.build((64,), 10), epochs=epochs)


def trials_per_second(workers, trials, epochs):
    """Return the trials per second once all workers train, and the seconds of a trial."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        study = create_study(
            "speed", storage=f"{folder}/optuna.journal", sampler="random", pruner="none"
        )
        optimize(
            study,
            slow_task(epochs),
            n_trials=trials,
            workers=workers,
            tracking_uri=f"sqlite:///{folder}/mlflow.db",
            checkpoints=f"{folder}/checkpoints",
            progress=False,
        )
        ends = sorted(t.datetime_complete for t in study.trials)
        seconds = statistics.mean(t.duration.total_seconds() for t in study.trials)
        skip = 2 * workers
        return (len(ends) - skip) / (ends[-1] - ends[skip - 1]).total_seconds(), seconds


def bare_seconds(turn, steps, seconds):
    """Train the same network in a plain loop once all processes are ready; report the seconds."""
    torch.set_num_threads(1)
    network = MLP(depth=2, width=512).build((64,), 10)
    optimizer = torch.optim.Adam(network.parameters())
    inputs, targets = torch.randn(32, 64), torch.arange(32) % 10

    def train(count):
        for _ in range(count):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs), targets).backward()
            optimizer.step()

    train(200)
    turn.wait()
    start = time.perf_counter()
    train(steps)
    seconds.put(time.perf_counter() - start)


def bare_loops(count, steps=3000):
    """Return the loops per second of some independent processes."""
    processes = multiprocessing.get_context("spawn")
    turn, seconds = processes.Barrier(count), processes.Queue()
    loops = [processes.Process(target=bare_seconds, args=(turn, steps, seconds)) for _ in range(count)]
    for loop in loops:
        loop.start()
    slowest = max(seconds.get() for _ in loops)
    for loop in loops:
        loop.join()
    return count / slowest


def speed(rounds, trials, epochs):
    """Print the trials per second of one and of two workers, and the gain of two bare loops."""
    ratios, shares = [], []
    print(f"{'round':>5}  {'one':>6}  {'two':>6}  trials/s   seconds a trial   two : one   bare loops")
    for number in range(1, rounds + 1):
        one, seconds = trials_per_second(1, trials, epochs)
        two, _ = trials_per_second(2, trials, epochs)
        bare = bare_loops(2) / bare_loops(1)
        ratios.append(two / one)
        shares.append(two / one / bare)
        print(
            f"{number:5}  {one:6.3f}  {two:6.3f}  {'':8}   {seconds:15.1f}   {ratios[-1]:9.2f}"
            f"   {bare:10.2f}",
            flush=True,
        )
    print(
        f"two workers run {statistics.median(ratios):.2f} times the trials per second of one: "
        f"{statistics.median(shares):.0%} of what two bare loops gain in processes of their own"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["speed", "capacity", "growth"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 32, 1000])
    parser.add_argument("--trials", type=int)
    parser.add_argument("--epochs", type=int, default=40)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if given.what == "speed":
        speed(given.rounds, given.trials or 16, given.epochs)
    elif given.what == "capacity":
        capacity(given.workers, given.trials or 2000)
    else:
        growth(given.workers[1], given.trials or 5000)
