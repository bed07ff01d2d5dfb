"""A trial that trains its record several times at once, epoch by epoch, and is scored by the mean.

Each training has a thread, and all but one of them wait: what is random in torch, NumPy and Python is
one state for all, so each finds it as it left it. Side by side, and not one after the other, they let a
pruner look at the mean.
"""

import copy
import statistics
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from pytorch_lightning.utilities.seed import isolate_rng

from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.seeds import derive
from lightning_tricks.task.quiet import quiet
from lightning_tricks.task.task import Task
from lightning_tricks.trial.result import Epoch, Report, Result, stopped_after
from lightning_tricks.trial.train import train
from lightning_tricks.tricks.record import Tricks

SPREAD = "repeats/spread"
"""The standard deviation of the scores of an epoch, as it is logged."""


def tasks_of(task: Task) -> list[Task]:
    """Return the task of each repeat: the first as it is, the others with their data split anew.

    Data that come as a training and a validation split stay as they are.
    """
    found = []
    for number in range(task.repeats):
        whole = isinstance(task.data, InMemoryData)
        data = task.data.split_anew(2 * number) if whole else copy.copy(task.data)
        found.append(replace(task, data=data, repeats=1))
    return found


def train_together(
    tasks: Sequence[Task],
    tricks: Tricks,
    seed: int,
    report: Report,
    interrupted: Callable[[], bool],
    checkpoint: Path | None,
) -> Result:
    """Train a record once for each task, and report the means; see `trial.train`.

    The first training has the trial's own seed, and its weights are the trial's. If one training
    diverges or fails, that is the end of all.

    Raises:
        Interrupted: soon after `interrupted()` becomes true.
    """
    members = [
        _Member(task, tricks, seed_of(seed, number), interrupted, path_of(checkpoint, number))
        for number, task in enumerate(tasks)
    ]
    together = _Together(members, report)
    with quiet():  # whose end puts right what the members' own ends mix up
        try:
            together.run()
        finally:
            for member in members:
                member.leave()
    return together.result()


def seed_of(seed: int, number: int) -> int:
    """Return the seed of a repeat: the first has the trial's own."""
    return derive(seed, number, "repeat") if number else seed


def path_of(checkpoint: Path | None, number: int) -> Path | None:
    """Return where the checkpoint of a repeat goes: that of the first is the trial's."""
    if checkpoint is None or not number:
        return checkpoint
    return checkpoint.with_name(f"{checkpoint.stem}.{number}{checkpoint.suffix}")


class _Member:
    """One of the trainings: it goes on when it is its turn, until it has an epoch to report."""

    def __init__(
        self,
        task: Task,
        tricks: Tricks,
        seed: int,
        interrupted: Callable[[], bool],
        checkpoint: Path | None,
    ) -> None:
        self.task, self.tricks, self.seed = task, tricks, seed
        self.checkpoint, self._asked = checkpoint, interrupted
        self.epoch: Epoch | None = None
        """The last that it reported."""
        self.stop = self.leaving = False
        self.result: Result | None = None
        self.error: BaseException | None = None
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._threads = torch.get_num_threads()

    @property
    def ended(self) -> bool:
        """Whether there is nothing left of it to train."""
        return self.result is not None or self.error is not None

    def advance(self) -> None:
        """Train until the end of an epoch, or of the training.

        Raises:
            BaseException: what the training raised.
        """
        if self.ended:
            return
        if not self._thread.ident:
            self._thread.start()
        self._turn.release()
        self._back.acquire()
        if self.error is not None:
            raise self.error

    def leave(self) -> None:
        """End the training at once, if it has not ended."""
        self.leaving = True
        if self._thread.ident:
            self._turn.release()
            self._thread.join()

    def _run(self) -> None:
        self._turn.acquire()
        torch.set_num_threads(self._threads)  # it holds for the thread that sets it
        try:
            self.result = train(
                self.task, self.tricks, self.seed, self._report, self._interrupted, self.checkpoint
            )
        except BaseException as error:  # told by whoever waits for it
            self.error = error
        finally:
            self._back.release()

    def _report(self, epoch: Epoch) -> bool:
        with isolate_rng():  # the others draw meanwhile
            self.epoch = epoch
            self._back.release()
            self._turn.acquire()
        return self.stop

    def _interrupted(self) -> bool:
        return self.leaving or self._asked()


class _Together:
    """Some trainings, which advance by an epoch each in turn."""

    def __init__(self, members: Sequence[_Member], report: Report) -> None:
        self.members, self.report = members, report
        self.epochs: list[Epoch] = []

    def run(self) -> None:
        """Train all to their end, or until one is at its end before its time."""
        while not all(member.ended for member in self.members):
            for member in self.members:
                member.advance()
                if member.result is not None and spoils(member.result):
                    return
            self._report()

    def _report(self) -> None:
        """Report the means of an epoch: who stopped before has the score of its last."""
        running = [member.epoch for member in self.members if member.epoch and not member.ended]
        if not running:
            return
        epochs = [member.epoch for member in self.members if member.epoch is not None]
        self.epochs.append(mean_of(epochs, max(epoch.number for epoch in running)))
        stop = self.report(self.epochs[-1])
        for member in self.members:
            member.stop = stop

    def result(self) -> Result:
        """Return what became of all of them."""
        results = [member.result for member in self.members if member.result is not None]
        return joined(results, self.epochs, max(result.seconds for result in results))


def joined(results: Sequence[Result], epochs: Sequence[Epoch], seconds: float) -> Result:
    """Return what became of a trial by what became of its repeats.

    Args:
        results: of the repeats, the first one's first.
        epochs: their means.
        seconds: that the trial took.
    """
    spoiled = [result for result in results if spoils(result)]
    ending = spoiled[0] if spoiled else results[0]
    if ending.state == "pruned" and not ending.diverged:
        ending = replace(ending, reason=stopped_after(epochs))
    trouble = "; ".join(dict.fromkeys(result.trouble for result in results if result.trouble))
    return replace(ending, epochs=list(epochs), trouble=trouble, seconds=seconds)


def spoils(result: Result) -> bool:
    """Tell whether a training came to an end of its own that leaves no score."""
    return result.state == "failed" or result.diverged


def mean_of(epochs: Sequence[Epoch], number: int) -> Epoch:
    """Return the mean of an epoch over repeats, with the score of each and their spread.

    Args:
        epochs: of each repeat.
        number: of the epoch.
    """
    names = [name for name in epochs[0].metrics if all(name in epoch.metrics for epoch in epochs)]
    metrics = {name: statistics.fmean(epoch.metrics[name] for epoch in epochs) for name in names}
    scores = [epoch.score for epoch in epochs]
    metrics |= {f"repeats/{at}": score for at, score in enumerate(scores)}
    metrics[SPREAD] = statistics.stdev(scores)
    return Epoch(number, statistics.fmean(scores), metrics)
