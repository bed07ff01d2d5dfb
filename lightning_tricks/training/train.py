"""`train`: one recipe with one seed, or with several at once."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import overload

from lightning_tricks.checked import check_type
from lightning_tricks.errors import InputError, shown, whole_number
from lightning_tricks.task.task import Task
from lightning_tricks.training.ranks import RankDied
from lightning_tricks.training.runner import Runner
from lightning_tricks.trial.fit import fit
from lightning_tricks.trial.job import Job
from lightning_tricks.trial.result import Report, Result
from lightning_tricks.trial.training import Training
from lightning_tricks.tricks.recipe import Tricks


@overload
def train(
    task: Task,
    tricks: Tricks,
    seed: int,
    report: Report = ...,
    interrupted: Callable[[], bool] = ...,
    checkpoint: Path | None = ...,
) -> Result: ...


@overload
def train(task: Task, tricks: Tricks, *, seeds: Iterable[int]) -> list[Result]: ...


def train(
    task: Task,
    tricks: Tricks,
    seed: int | None = None,
    report: Report = lambda epoch: False,
    interrupted: Callable[[], bool] = lambda: False,
    checkpoint: Path | None = None,
    *,
    seeds: Iterable[int] | None = None,
) -> Result | list[Result]:
    """Train a recipe with one seed, or with several seeds at once (as one program if possible).

    The same task, tricks and seed give the same result on one machine. A loss, gradient or score that is
    not finite prunes the trial; an exception fails it.

    Args:
        task: what to train.
        tricks: the recipe.
        seed: the seed of everything random.
        report: called with each epoch, including those before the checkpoint; returns whether to stop.
        interrupted: called before each batch; returns whether to drop the training.
        checkpoint: the file to write checkpoints to. If it holds one of the same trial, training
            resumes from it.
        seeds: several seeds instead of one; the results have the same order.

    Raises:
        InputError: if neither `seed` nor `seeds` is given, both are, or a seed is no whole number.
        Interrupted: soon after `interrupted()` becomes true.
    """
    check_type("task", task, Task)
    check_type("tricks", tricks, Tricks)
    if (seed is None) == (seeds is None):
        raise InputError("train takes either seed (a whole number) or seeds (several): give one of them")
    if seed is not None:
        seed = whole_number("seed", seed, 0)
        return fit(Training(task, tricks, seed, report, interrupted, checkpoint))
    if not isinstance(seeds, Iterable):
        raise InputError(f"seeds must be whole numbers, such as range(3) (got {shown(seeds, 80)})")
    each = [whole_number("a seed", seed, 0) for seed in seeds]
    jobs = [Job(number, tricks, seed) for number, seed in enumerate(each)]
    results: dict[int, Result] = {}

    def on_result(job: Job, result: Result | RankDied) -> None:
        assert isinstance(result, Result)  # no other processes are used here
        results[job.number] = result

    Runner(task.once()).train(jobs, lambda job, epoch: False, on_result)
    return [results[job.number] for job in jobs]
