"""The code that trains inside a Ray actor."""

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import cloudpickle
import joblib
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from lightning_tricks.errors import one_line
from lightning_tricks.training.group_size import GroupSize
from lightning_tricks.training.ranks import RankDied
from lightning_tricks.training.runner import Runner
from lightning_tricks.trial.job import Job
from lightning_tricks.trial.result import Epoch, Result

BEAT_SECONDS = 2.0
"""Seconds between signs of life during an epoch."""


class TrialRunner:
    """Trains the jobs of an actor.

    Args:
        work: the pickled task.
        devices: the number of devices that train a trial together.
        neighbours: number of workers that share this machine's cores.
        threads: threads per worker, if set by the user; by default its share of the cores.
    """

    def __init__(self, work: bytes, devices: int, neighbours: int, threads: str | None) -> None:
        self.runner = Runner(cloudpickle.loads(work), devices, self._interrupted)
        cores = joblib.cpu_count(only_physical_cores=True)
        self.threads = int(threads) if threads else max(cores // neighbours, 1)
        if not threads:
            os.environ.pop("OMP_NUM_THREADS", None)  # Ray's, not the user's
        self.stopped: set[int] = set()
        self.advanced = False

    def stop(self, number: int) -> None:
        """Stop a trial at the end of its epoch."""
        self.stopped.add(number)

    def _interrupted(self) -> bool:
        self.advanced = True
        return False

    def train(self, pickled_jobs: bytes) -> Iterator[Any]:
        """Train trials; yield lists of their epochs and results, then the weights of each result.

        News that arrive together are sent together: each message to Ray takes a millisecond or more.
        """
        jobs, group_size = cloudpickle.loads(pickled_jobs)
        inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._train, args=(jobs, group_size, inbox.put), daemon=True).start()
        left = {job.number for job in jobs}
        while left:
            if not (news := list(_what_came(inbox))):
                if self.advanced:
                    self.advanced = False
                    yield [("alive", 0, None)]
                continue
            yield [_told(number, item) for number, item in news]
            for number, item in news:
                if isinstance(item, Result):
                    yield cloudpickle.dumps(tree_map_only(Tensor, Tensor.cpu, dict(item.weights)))
                if isinstance(item, Result | str):
                    left.remove(number)
        yield [("done", 0, None)]

    def _train(
        self, jobs: Sequence[Job], group_size: GroupSize, put: Callable[[tuple[int, Any]], None]
    ) -> None:
        torch.set_num_threads(self.threads)  # applies to the calling thread only
        left = {job.number for job in jobs}

        def on_epoch(job: Job, epoch: Epoch) -> bool:
            put((job.number, epoch))
            return job.number in self.stopped

        def on_result(job: Job, result: Result | RankDied) -> None:
            left.remove(job.number)
            put((job.number, str(result) if isinstance(result, RankDied) else result))

        try:
            self.runner.train(
                jobs, on_epoch, on_result, group_size, lambda found: put((jobs[0].number, found))
            )
        except BaseException as error:  # else the actor would wait forever
            for number in left:
                put((number, f"{type(error).__name__}: {one_line(error)}"))


def _what_came(inbox: "queue.SimpleQueue[Any]") -> Iterator[Any]:
    """Yield all queued items; wait up to `BEAT_SECONDS` for the first."""
    with contextlib.suppress(queue.Empty):
        yield inbox.get(timeout=BEAT_SECONDS)
        while True:
            yield inbox.get_nowait()


def _told(number: int, item: Result | str | GroupSize | Epoch) -> tuple[str, int, Any]:
    """Return an item as a message: in bytes, because the driver does not import the package."""
    match item:
        case Result():
            return "result", number, cloudpickle.dumps(replace(item, weights={}))
        case str():
            return "lost", number, item
        case GroupSize():
            return "group_size", number, cloudpickle.dumps(item)
        case Epoch():
            return "epoch", number, cloudpickle.dumps(item)
