"""A trial that trains its recipe several times at once, epoch by epoch, and is scored by the mean.

Each training has a thread, and all but one of them wait: what is random in torch, NumPy and Python is
one state for all, so each finds it as it left it. Side by side, and not one after the other, they let a
pruner look at the mean.
"""

import copy
import statistics
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from pytorch_lightning.utilities.seed import isolate_rng

from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.seeds import derive
from lightning_tricks.task.quiet import quiet
from lightning_tricks.task.task import Task
from lightning_tricks.trial.fit import fit
from lightning_tricks.trial.result import Epoch, Report, Result, stopped_after
from lightning_tricks.trial.training import Training

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


def repeats_of(training: Training, tasks: Sequence[Task]) -> list[Training]:
    """Return the trainings of a trial that has one for each of some tasks.

    The first has the trial's own seed and checkpoint, and its weights are the trial's.
    """
    return [
        replace(
            training,
            task=task,
            seed=derive(training.seed, number, "repeat") if number else training.seed,
            checkpoint=_path_of(training.checkpoint, number),
        )
        for number, task in enumerate(tasks)
    ]


def train_together(training: Training, tasks: Sequence[Task]) -> Result:
    """Train a recipe once for each task, and report the means; see `fit`.

    If one training diverges or fails, that is the end of all.

    Raises:
        Interrupted: soon after it is to be dropped.
    """
    means = Means(len(tasks), training.report)
    members = [_Member(own) for own in repeats_of(training, tasks)]
    with quiet():  # whose end puts right what the members' own ends mix up
        try:
            _in_turn(members, means)
        finally:
            for member in members:
                member.leave()
    return means.result(max(result.seconds for result in means.results.values()))


def _in_turn(members: "Sequence[_Member]", means: "Means") -> None:
    """Train all to their end, epoch by epoch, or until one is at its end before its time."""
    while not all(member.ended for member in members):
        for number, member in enumerate(members):
            if (news := member.advance()) is not None:
                means.hear(number, news)
            if member.result is not None:
                means.end(number, member.result)
            if means.spoiled:
                return
        for member in members:
            member.stop = means.stops()


def _path_of(checkpoint: Path | None, number: int) -> Path | None:
    """Return where the checkpoint of a repeat goes: that of the first is the trial's."""
    if checkpoint is None or not number:
        return checkpoint
    return checkpoint.with_name(f"{checkpoint.stem}.{number}{checkpoint.suffix}")


class _Member:
    """One of the trainings: it goes on when it is its turn, until it has an epoch to report."""

    def __init__(self, training: Training) -> None:
        self.training = replace(training, report=self._report, interrupted=self._interrupted)
        self._asked = training.interrupted
        self._epoch: Epoch | None = None
        """That it has to report."""
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

    def advance(self) -> Epoch | None:
        """Train until the end of an epoch, which is returned, or of the training.

        Raises:
            BaseException: what the training raised.
        """
        if self.ended:
            return None
        self._epoch = None
        if not self._thread.ident:
            self._thread.start()
        self._turn.release()
        self._back.acquire()
        if self.error is not None:
            raise self.error
        return self._epoch

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
            self.result = fit(self.training)
        except BaseException as error:  # told by whoever waits for it
            self.error = error
        finally:
            self._back.release()

    def _report(self, epoch: Epoch) -> bool:
        with isolate_rng():  # the others draw meanwhile
            self._epoch = epoch
            self._back.release()
            self._turn.acquire()
        return self.stop

    def _interrupted(self) -> bool:
        return self.leaving or self._asked()


class Means:
    """The epochs of several trainings of one recipe, reported by their mean once all have one.

    Args:
        count: of the trainings.
        report: takes the mean of an epoch; returns whether all are to stop.
    """

    def __init__(self, count: int, report: Report) -> None:
        self.report, self.epochs = report, list[Epoch]()
        self.results: dict[int, Result] = {}
        """Of those that have ended."""
        self._heard: list[list[Epoch]] = [[] for _ in range(count)]
        self._stop = False

    def __len__(self) -> int:
        return len(self._heard)

    @property
    def ended(self) -> bool:
        """Whether all have ended."""
        return len(self.results) == len(self._heard)

    @property
    def spoiled(self) -> bool:
        """Whether one came to an end that leaves no score."""
        return any(spoils(result) for result in self.results.values())

    def hear(self, number: int, epoch: Epoch) -> None:
        """Take an epoch of a training."""
        self._heard[number].append(epoch)

    def end(self, number: int, result: Result) -> None:
        """Take the result of a training; the others may have waited for it."""
        self.results[number] = result
        self.stops()

    def stops(self) -> bool:
        """Report the means of the epochs that all have by now; tell whether all are to stop."""
        while not (self._stop or self.spoiled) and self._complete(at := len(self.epochs)):
            # Who stopped before has the score of its last epoch.
            epochs = [heard[min(at, len(heard) - 1)] for heard in self._heard]
            self.epochs.append(_mean_of(epochs, at))
            self._stop = self.report(self.epochs[-1])
        return self._stop or self.spoiled

    def _complete(self, at: int) -> bool:
        """Tell whether all have reported an epoch, or ended before it; not if all have ended."""
        reported = [len(heard) > at for heard in self._heard]
        return any(reported) and all(
            done or number in self.results for number, done in enumerate(reported)
        )

    def result(self, seconds: float) -> Result:
        """Return what became of the trial, that took so long, by what became of its trainings."""
        results = [self.results[number] for number in sorted(self.results)]
        spoiled = [result for result in results if spoils(result)]
        ending = spoiled[0] if spoiled else results[0]
        if ending.state == "pruned" and not ending.diverged:
            ending = replace(ending, reason=stopped_after(self.epochs))
        warning = "; ".join(dict.fromkeys(result.warning for result in results if result.warning))
        return replace(ending, epochs=list(self.epochs), warning=warning, seconds=seconds)


def spoils(result: Result) -> bool:
    """Tell whether a training came to an end of its own that leaves no score."""
    return result.state == "failed" or result.diverged


def _mean_of(epochs: Sequence[Epoch], number: int) -> Epoch:
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
