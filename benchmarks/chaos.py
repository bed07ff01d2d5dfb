"""A study during which everything dies, beside the same study undisturbed.

60 trials on two workers. Whenever both train, and every few seconds at most, one is killed (`kill -9`);
the MLflow server is stopped and started twice, and the program itself is killed three times and started
again. No trial is hit a third time: it would be given up, as it should be. It must end with
exactly 60 finished trials, none twice, Optuna and MLflow in agreement, and the best score of the
undisturbed study. Random search without pruning, so that both study the same records.

    python benchmarks/chaos.py [--trials 60] [--seconds 6]
"""

import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
import psutil
from sklearn.datasets import load_digits

from lightning_tricks import MLP, InMemoryData, Task, main

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from server import Server

from lightning_tricks.agreement import differences
from lightning_tricks.search import finished, load_study

FLAGS = ["--sampler", "random", "--pruner", "none", "--seed", "1"]


def task():
    """Return a task whose trials take a second or two."""
    data = InMemoryData.from_arrays(*load_digits(return_X_y=True), batch_size=32)
    return Task("chaos", data, lambda tricks: MLP().build((64,), 10), epochs=30)


def study_command(trials, *arguments):
    """Return the command of the study, which is this file again."""
    return [sys.executable, __file__, "--study", "--n-trials", str(trials), *FLAGS, *arguments]


class Chaos:
    """The disturbed study, and those who disturb it."""

    def __init__(self, folder, trials, seconds):
        self.folder, self.trials, self.seconds = folder, trials, seconds
        self.server = Server(folder)
        self.counts = collections.Counter()
        self.random = random.Random(0)
        self.program = None

    def run(self):
        """Disturb the study until it is finished; return what it printed on its errors."""
        self.server.start()
        with (self.folder / "log").open("ab") as log:
            self.start(log)
            kills = [self.trials * k // 4 for k in (1, 2, 3)]
            stops = [self.trials // 3, 2 * self.trials // 3]
            begun = 0
            next_kill = time.monotonic() + 3 * self.seconds
            while self.program.poll() is None:
                done = self.done()
                if kills and done >= kills[0]:
                    kills.pop(0)
                    self.kill_program(log)
                    begun = done
                elif stops and done >= stops[0] and done > begun:
                    stops.pop(0)  # a program that starts just then would rightly refuse to
                    self.restart_server()
                elif time.monotonic() > next_kill and self.kill_worker():
                    next_kill = time.monotonic() + self.seconds
                time.sleep(0.3)
        text = (self.folder / "log").read_text()
        if self.program.returncode:
            raise SystemExit(text[-3000:])
        return text

    def start(self, log):
        """Start the program, as its user would."""
        self.program = subprocess.Popen(
            study_command(self.trials, "--workers", "2", "--tracking-uri", self.server.uri),
            cwd=self.folder,
            stdout=log,
            stderr=log,
        )

    def trials_now(self):
        """Return the trials as the storage has them."""
        try:
            return load_study("chaos", self.folder / "optuna.journal").get_trials(deepcopy=False)
        except Exception:  # it is not there yet
            return []

    def done(self):
        """Return the number of finished trials."""
        return sum(trial.state.is_finished() for trial in self.trials_now())

    def kill_program(self, log):
        """Kill the coordinator, and start it again at once."""
        self.program.kill()
        self.program.wait()
        self.counts["program killed"] += 1
        self.start(log)

    def restart_server(self):
        """Stop the MLflow server for some seconds."""
        self.server.kill()
        time.sleep(self.seconds)
        self.server.start()
        self.counts["MLflow server stopped"] += 1

    def kill_worker(self):
        """Kill one of the workers, if both train; return whether one was killed."""
        running = [t for t in self.trials_now() if not t.state.is_finished()]
        family = psutil.Process(self.program.pid).children(recursive=True)
        training = [p for p in family if trains(p)]
        if len(training) < 2 or any(t.user_attrs.get("deaths", 0) > 1 for t in running):
            return False
        os.kill(self.random.choice(training).pid, signal.SIGKILL)
        self.counts["worker killed"] += 1
        return True


def trains(process):
    """Tell whether a process is a worker in the middle of a trial, which Ray's name for it says."""
    try:
        return "Trainer.train" in "".join(process.cmdline())
    except psutil.Error:  # it has died meanwhile
        return False


def best_of(folder):
    """Return the study of a folder, and its best score."""
    study = load_study("chaos", Path(folder) / "optuna.journal")
    return study, study.best_value


def compare(trials, seconds):
    """Run both studies and print what came of them; return whether all is as it must be."""
    with tempfile.TemporaryDirectory() as calm, tempfile.TemporaryDirectory() as wild:
        subprocess.run(
            study_command(trials, "--workers", "2"),
            cwd=calm,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        chaos = Chaos(Path(wild), trials, seconds)
        try:
            log = chaos.run()
            study, best = best_of(wild)
            undisturbed, expected = best_of(calm)
            found = differences(study, task(), chaos.server.uri)
            ended = finished(study)
            scores = {t.number: t.value for t in undisturbed.trials}
            other = [t.number for t in ended if t.value != scores[t.number]]
            states = collections.Counter(t.state.name for t in ended)
            print(", ".join(f"{name} {count} times" for name, count in chaos.counts.items()))
            print(f"warned of {log.count('the trial goes on elsewhere')} lost workers")
            print(f"finished trials: {len(ended)} of {trials} ({dict(states)})")
            print(f"trials in all, each number once: {len({t.number for t in study.trials})}")
            print(f"differences between Optuna and MLflow: {len(found)}")
            print(*found[:5], sep="\n")
            print(f"trials with another score than undisturbed: {len(other)} {other[:9]}")
            print(f"best score: {best:.4f}, undisturbed {expected:.4f}")
            return len(ended) == trials == len(study.trials) and not found and best == expected
        finally:
            chaos.server.kill()


if __name__ == "__main__":
    if "--study" in sys.argv:
        sys.argv.remove("--study")
        sys.exit(main(task))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=6.0)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sys.exit(0 if compare(given.trials, given.seconds) else 1)
