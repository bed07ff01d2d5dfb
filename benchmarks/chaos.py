"""A study in which processes keep dying, compared to the same study undisturbed.

Two workers train. After every trial or two, `kill -9` hits a worker, the program, one of Ray's own
processes (its raylet, its GCS, an agent) or the MLflow server. The server restarts after some seconds,
the program at once. No trial is hit a third time, because it would then be given up, as it should be. At
the end, both studies must hold the same trials, with the same parameters, states and scores, and Optuna
and MLflow must agree. The search is random, without pruning, so that both studies try the same recipes.

    python benchmarks/chaos.py [--deaths 200] [--trials 400] [--seconds 6] [--modules]
"""

import argparse
import collections
import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
import psutil
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from lightning_tricks import MLP, InMemoryData, ModuleTricks, Task, main

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from server import Server

from lightning_tricks.search.keys import LOSSES
from lightning_tricks.search.studies import finished, load_study
from lightning_tricks.tracking.agreement import differences

MODULES = "--modules"
FLAGS = ["--sampler", "random", "--pruner", "none", "--repeats", "1", "--seed", "1", "--fuse", "off"]
"""Without groups: a member that loses its group continues in another, whose sums round differently."""


class Digits(pl.LightningModule):
    """A LightningModule with its own steps, loss and optimizer."""

    def __init__(self):
        super().__init__()
        self.network = MLP().build((64,), 10)

    def forward(self, inputs):
        return self.network(inputs)

    def training_step(self, batch, number):
        return F.cross_entropy(self(batch[0].float() / 16), batch[1])

    def validation_step(self, batch, number):
        outputs = self(batch[0].float() / 16)
        self.log("val/loss", F.cross_entropy(outputs, batch[1]))
        self.log("val/accuracy", (outputs.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def task():
    """Return a task whose trials take a second or two."""
    data = InMemoryData.from_arrays(*load_digits(return_X_y=True), batch_size=32)
    if MODULES in sys.argv:
        return Task("chaos", data, lambda tricks: Digits(), tricks=ModuleTricks, epochs=20)
    return Task("chaos", data, lambda tricks: MLP().build((64,), 10), epochs=30)


def study_command(trials, *arguments):
    """Return the command of the study, which is this file again."""
    kind = [MODULES] if MODULES in sys.argv else []
    own = [sys.executable, __file__, "--study", *kind, "--n-trials", str(trials)]
    return [*own, *FLAGS, *arguments]


class Chaos:
    """The disturbed study, and the code that disturbs it."""

    def __init__(self, folder, trials, deaths, seconds):
        self.folder, self.trials, self.deaths, self.seconds = folder, trials, deaths, seconds
        self.server = Server(folder)
        self.counts, self.died = collections.Counter(), 0
        self.random = random.Random(0)
        self.program = self.log = None

    def run(self):
        """Disturb the study until it is finished; return its log."""
        self.server.start()
        with (self.folder / "log").open("ab") as self.log:
            self.start()
            while self.died < self.deaths and self.wait(
                (self.died + 1) * self.trials // (self.deaths + 1)
            ):
                kind = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
                if name := getattr(self, kind)():
                    self.counts[name] += 1
                    self.died += 1
                    print(f"{self.died}: {name}", file=sys.stderr, flush=True)
            while self.program.wait() == MLFLOW_INCOMPLETE:
                self.counts["command run again, because the server was away at the end"] += 1
                self.start()
        text = (self.folder / "log").read_text()
        if self.program.returncode:
            raise SystemExit(text[-3000:])
        return text

    def start(self):
        """Start the program, as its user would."""
        self.program = subprocess.Popen(
            study_command(self.trials, "--workers", "2", "--tracking-uri", self.server.uri),
            cwd=self.folder,
            stdout=self.log,
            stderr=self.log,
        )

    def wait(self, done):
        """Wait until `done` trials ended and one may be hit; return whether the program still runs."""
        while self.program.poll() is None:
            trials = self.trials_now()
            running = [t for t in trials if not t.state.is_finished()]
            hit = any(t.user_attrs.get(LOSSES, 0) > 1 for t in running)
            if len(trials) - len(running) >= done and not hit and self.training():
                return True
            time.sleep(0.3)
        return False

    def trials_now(self):
        """Return the trials in the storage."""
        try:
            return load_study("chaos", self.folder / "optuna.journal").get_trials(deepcopy=False)
        except Exception:  # the storage does not exist yet
            return []

    def family(self):
        """Return the processes that the program started."""
        try:
            return psutil.Process(self.program.pid).children(recursive=True)
        except psutil.Error:  # the program has ended meanwhile
            return []

    def training(self):
        """Return the workers in the middle of a trial."""
        return [p for p in self.family() if trains(p)]

    def kill_program(self):
        """Kill the coordinator, and start it again at once."""
        self.program.kill()
        self.program.wait()
        self.start()
        return "program"

    def kill_server(self):
        """Stop the MLflow server for some seconds."""
        self.server.kill()
        time.sleep(self.seconds)
        self.server.start()
        return "MLflow server"

    def kill_worker(self):
        """Kill one of the workers."""
        workers = self.training()
        self.random.shuffle(workers)
        return self.kill("worker", workers)

    def kill_ray(self):
        """Kill one of Ray's own processes."""
        name = self.random.choice(["raylet", "gcs_server", "ray::Dashboard", "ray::RuntimeEnv"])
        workers = self.training()
        killed = self.kill(name.removeprefix("ray::"), [p for p in self.family() if name in named(p)])
        psutil.wait_procs(workers, timeout=60)  # hit no worker again before it is missed
        return killed

    def kill(self, name, processes):
        """Kill the first of some processes; return the name, or nothing if there was none."""
        for process in processes[:1]:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
                psutil.wait_procs([process], timeout=60)
                return name
        return ""


MLFLOW_INCOMPLETE = 3
WEIGHTS = {"kill_worker": 12, "kill_program": 3, "kill_ray": 3, "kill_server": 2}


def named(process):
    """Return the name of a process; empty if it has ended."""
    try:
        return process.name()
    except psutil.Error:
        return ""


def trains(process):
    """Tell whether a process is a worker in the middle of a trial, by the name that Ray gives it."""
    try:
        return "Actor.train" in "".join(process.cmdline())
    except psutil.Error:  # it has died meanwhile
        return False


def differing(one, other):
    """Return the differences between the trials of two studies, by trial number."""
    both = [
        {t.number: {**t.params, "state": t.state.name, "value": t.value} for t in study.trials}
        for study in (one, other)
    ]
    found = {}
    for number in sorted({**both[0], **both[1]}):
        mine, theirs = (held.get(number, {}) for held in both)
        names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
        if names:
            found[number] = [f"{name} {mine.get(name)}, {theirs.get(name)}" for name in names]
    return found


def compare(trials, deaths, seconds):
    """Run both studies and print the comparison; return whether everything is as it must be."""
    with tempfile.TemporaryDirectory() as calm, tempfile.TemporaryDirectory() as wild:
        subprocess.run(
            study_command(trials, "--workers", "2"),
            cwd=calm,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        chaos = Chaos(Path(wild), trials, deaths, seconds)
        try:
            log = chaos.run()
            study, undisturbed = (load_study("chaos", Path(f) / "optuna.journal") for f in (wild, calm))
            found = differences(study, task(), chaos.server.uri)
            other = differing(study, undisturbed)
            states = collections.Counter(t.state.name for t in finished(study))
            print(
                f"{chaos.died} deaths: {', '.join(f'{n} {count}' for n, count in chaos.counts.items())}"
            )
            print(f"warned of {log.count('the trial goes on elsewhere')} trials that lost their worker")
            print(f"finished trials: {sum(states.values())} of {trials} ({dict(states)})")
            print(f"differences between Optuna and MLflow: {len(found)}", *found[:5], sep="\n  ")
            print(f"trials that differ from the undisturbed study: {len(other)} {list(other)}")
            for number, names in list(other.items())[:5]:
                print(f"  trial {number}, disturbed and not: {'; '.join(names)}")
            print(f"best score: {study.best_value:.4f}, undisturbed {undisturbed.best_value:.4f}")
            return chaos.died >= deaths and not found and not other
        finally:
            chaos.server.kill()


if __name__ == "__main__":
    if "--study" in sys.argv:
        arguments = [flag for flag in sys.argv[1:] if flag not in ("--study", MODULES)]
        sys.exit(main(task, arguments, finalists=0))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--deaths", type=int, default=200)
    parser.add_argument("--trials", type=int, help="by default two for each death")
    parser.add_argument(MODULES, action="store_true", help="train LightningModules")
    parser.add_argument("--seconds", type=float, default=6.0, help="seconds that the server is away")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sys.exit(0 if compare(given.trials or 2 * given.deaths, given.deaths, given.seconds) else 1)
