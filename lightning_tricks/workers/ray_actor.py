"""What trains in a Ray actor."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import cloudpickle
import joblib
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from lightning_tricks.errors import one_line
from lightning_tricks.trial.ddp import RankDied, Ranks
from lightning_tricks.trial.result import Epoch, Result
from lightning_tricks.workers.base import Job, Lost

BEAT_SECONDS = 2.0
"""How often a worker tells that its trial advances, between epochs."""


class TrialRunner:
    """What an actor trains with.

    Args:
        work: the pickled task.
        devices: the number of devices that train a trial together.
        neighbours: the workers that share the cores of this machine.
        threads: for each worker, if the user says so; by default its share of the cores.
    """

    def __init__(self, work: bytes, devices: int, neighbours: int, threads: str | None) -> None:
        self.ranks = Ranks(cloudpickle.loads(work), devices)
        cores = joblib.cpu_count(only_physical_cores=True)
        self.threads = int(threads) if threads else max(cores // neighbours, 1)
        self.stopped: set[int] = set()
        self.advanced = False

    def stop(self, number: int) -> None:
        """Stop a trial at the end of its epoch."""
        self.stopped.add(number)

    def train(self, pickled_job: bytes) -> Iterator[tuple[str, Any]]:
        """Train a trial; tell its epochs, its result without weights, and then its weights."""
        job: Job = cloudpickle.loads(pickled_job)
        inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._train, args=(job, inbox.put), daemon=True).start()
        while True:
            try:
                item = inbox.get(timeout=BEAT_SECONDS)
            except queue.Empty:
                if self.advanced:
                    self.advanced = False
                    yield "alive", None
                continue
            if isinstance(item, Result):
                yield "result", cloudpickle.dumps(replace(item, weights={}))
                yield cloudpickle.dumps(tree_map_only(Tensor, Tensor.cpu, dict(item.weights)))
                return
            if isinstance(item, Lost):
                yield "lost", item.reason
                return
            yield "epoch", cloudpickle.dumps(item)

    def _train(self, job: Job, put: Callable[[Any], None]) -> None:
        torch.set_num_threads(self.threads)  # it holds for the thread that sets it

        def report(epoch: Epoch) -> bool:
            put(epoch)
            return job.number in self.stopped

        def interrupted() -> bool:
            self.advanced = True
            return False

        try:
            put(self.ranks.train(job.tricks, job.seed, report, interrupted, job.checkpoint))
        except RankDied as death:
            put(Lost(job.number, str(death)))
        except BaseException as error:  # else the actor would wait for ever
            put(Lost(job.number, f"{type(error).__name__}: {one_line(error)}"))
