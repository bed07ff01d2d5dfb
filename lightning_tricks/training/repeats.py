"""A trial that trains its recipe several times at once, epoch by epoch; its score is the mean.

Each training has its own thread, and only one runs at a time, because torch, NumPy and Python share one
random state; each training finds it as it left it. Taking turns each epoch lets a pruner see the mean.
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

SPREAD = "val repeats/spread"
"""Name of the logged standard deviation of an epoch's scores."""


def tasks_of(task: Task) -> list[Task]:
    """Return the task of each repeat: all but the first get a new split of the data.

    Data that come already split into training and validation stay unchanged.
    """
    if task.repeats == 1:
        return [task]
    found = []
    for number in range(task.repeats):
        whole = isinstance(task.data, InMemoryData)
        data = task.data.split_anew(2 * number) if whole else copy.copy(task.data)
        found.append(replace(task, data=data, repeats=1))
    return found


def repeats_of(training: Training, tasks: Sequence[Task]) -> list[Training]:
    """Return a trial's trainings, one per task.

    The first has the trial's own seed and checkpoint, and its weights become the trial's.
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

    If one training diverges or fails, all end.

    Raises:
        Interrupted: soon after `training.interrupted()` becomes true.
    """
    means = Means(len(tasks), training.report)
    members = [_Member(own) for own in repeats_of(training, tasks)]
    with quiet():  # restores the state that the members' interleaved `quiet` blocks mix up
        try:
            _in_turn(members, means)
        finally:
            for member in members:
                member.leave()
    return means.result(max(result.seconds for result in means.results.values()))


def _in_turn(members: "Sequence[_Member]", means: "Means") -> None:
    """Train all members, epoch by epoch, until all end, or one fails or diverges."""
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
    """Return the path of a repeat's checkpoint; the first repeat uses the trial's."""
    if checkpoint is None or not number:
        return checkpoint
    return checkpoint.with_name(f"{checkpoint.stem}.{number}{checkpoint.suffix}")


class _Member:
    """One of the trainings; in its turn it trains until it can report an epoch."""

    def __init__(self, training: Training) -> None:
        self.training = replace(training, report=self._report, interrupted=self._interrupted)
        self._asked = training.interrupted
        self._epoch: Epoch | None = None
        """Epoch to report."""
        self.stop = self.leaving = False
        self.result: Result | None = None
        self.error: BaseException | None = None
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._threads = torch.get_num_threads()

    @property
    def ended(self) -> bool:
        """Whether the training is over."""
        return self.result is not None or self.error is not None

    def advance(self) -> Epoch | None:
        """Train to the end of an epoch and return it; None if the training ends instead.

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
        torch.set_num_threads(self._threads)  # applies to the calling thread only
        try:
            self.result = fit(self.training)
        except BaseException as error:  # `advance` raises it
            self.error = error
        finally:
            self._back.release()

    def _report(self, epoch: Epoch) -> bool:
        with isolate_rng():  # the other trainings draw in between
            self._epoch = epoch
            self._back.release()
            self._turn.acquire()
        return self.stop

    def _interrupted(self) -> bool:
        return self.leaving or self._asked()


class Means:
    """Reports the mean of each epoch once all trainings of a recipe have reached it.

    Args:
        count: number of trainings.
        report: takes the mean of an epoch; returns whether all must stop.
    """

    def __init__(self, count: int, report: Report) -> None:
        self.report, self.epochs = report, list[Epoch]()
        self.results: dict[int, Result] = {}
        """Results of the trainings that ended, by index."""
        self._heard: list[list[Epoch]] = [[] for _ in range(count)]
        self._stop = False

    def __len__(self) -> int:
        return len(self._heard)

    @property
    def ended(self) -> bool:
        """Whether all trainings ended."""
        return len(self.results) == len(self._heard)

    @property
    def spoiled(self) -> bool:
        """Whether a training failed or diverged."""
        return any(spoils(result) for result in self.results.values())

    def hear(self, number: int, epoch: Epoch) -> None:
        """Take an epoch of a training."""
        self._heard[number].append(epoch)

    def end(self, number: int, result: Result) -> None:
        """Take the result of a training; the others may be waiting for it."""
        self.results[number] = result
        self.stops()

    def stops(self) -> bool:
        """Report the epochs that all trainings have reached; return whether all must stop."""
        while not (self._stop or self.spoiled) and self._complete(at := len(self.epochs)):
            # A training that stopped earlier counts with its last epoch.
            epochs = [heard[min(at, len(heard) - 1)] for heard in self._heard]
            self.epochs.append(_mean_of(epochs, at))
            self._stop = self.report(self.epochs[-1])
        return self._stop or self.spoiled

    def _complete(self, at: int) -> bool:
        """Return whether each training reached an epoch or ended before it; false if none reached it."""
        reported = [len(heard) > at for heard in self._heard]
        return any(reported) and all(
            done or number in self.results for number, done in enumerate(reported)
        )

    def result(self, seconds: float) -> Result:
        """Return the trial's result, from those of its trainings and the time it took."""
        results = [self.results[number] for number in sorted(self.results)]
        spoiled = [result for result in results if spoils(result)]
        paused = [result for result in results if result.state == "paused"]
        ending = [*spoiled, *paused, *results][0]
        if ending.state == "pruned" and not ending.diverged:
            ending = replace(ending, reason=stopped_after(self.epochs))
        warning = "; ".join(dict.fromkeys(result.warning for result in results if result.warning))
        return replace(ending, epochs=list(self.epochs), warning=warning, seconds=seconds)


def spoils(result: Result) -> bool:
    """Return whether a training failed or diverged, so that it has no score."""
    return result.state == "failed" or result.diverged


def _mean_of(epochs: Sequence[Epoch], number: int) -> Epoch:
    """Return the mean of an epoch over repeats, with each score and their spread as metrics.

    Args:
        epochs: the epoch of each repeat.
        number: the epoch's number.
    """
    names = [name for name in epochs[0].metrics if all(name in epoch.metrics for epoch in epochs)]
    metrics = {name: statistics.fmean(epoch.metrics[name] for epoch in epochs) for name in names}
    scores = [epoch.score for epoch in epochs]
    metrics |= {f"val repeats/{at}": score for at, score in enumerate(scores)}
    metrics[SPREAD] = statistics.stdev(scores)
    return Epoch(number, statistics.fmean(scores), metrics)
