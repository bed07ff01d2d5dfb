"""What a study script does once its arguments are read."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.errors import InputError, UnknownStudy, shown, user_code
from lightning_tricks.process import unchanged
from lightning_tricks.redaction import redacted
from lightning_tricks.report.file import check_report_file, write_report
from lightning_tricks.search import lock
from lightning_tricks.search.outcomes import MLFLOW_RUN, PARTS, counted, inspect, kept, part_name
from lightning_tricks.search.standing import verdict_of
from lightning_tricks.search.studies import StudyMaker, create_study, finished, load_study, storage_file
from lightning_tricks.space.space import Space
from lightning_tricks.study.conclusion import report_of
from lightning_tricks.study.optimize import optimize
from lightning_tricks.study.summary import count
from lightning_tricks.task.task import Task
from lightning_tricks.tracking.agreement import differences, left_behind, removals
from lightning_tricks.tracking.client import tracking_file
from lightning_tricks.tracking.holdings import sweep

FEW, SEVERAL = 500, 3
"""With fewer validation samples a trial trains its record several times, unless told otherwise."""


HANDFUL = 5
"""More things than these are removed from MLflow only with `--remove`."""


@unchanged()
def run(given: argparse.Namespace, make_task: Callable[[], Task]) -> int:
    """Train a study, or compare what Optuna and MLflow hold of it; return the exit code.

    Args:
        given: the arguments that all study scripts share.
        make_task: makes the task.

    Raises:
        InputError: if anything given is wrong.
    """
    if given.repair and not given.check:
        raise InputError("--repair goes with --check: it mends what that finds")
    if given.remove and not given.repair:
        raise InputError("--remove goes with --repair: it lets that remove what Optuna does not know")
    with user_code("the task cannot be made"):
        task = make_task()
    if not isinstance(task, Task):
        raise InputError(f"the function that makes the task must return a Task (got {shown(task, 60)})")
    if given.epochs is not None:
        task = replace(task, epochs=given.epochs)
    task = replace(task, repeats=_repeats(task) if given.repeats == "auto" else given.repeats)
    space = Space(task.tricks)
    if given.space is not None:
        space = Space.from_yaml(task.tricks, given.space)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _check_places(given)
    name = given.study_name or task.name
    if given.report is not None:
        return _report(name, given, task)
    return _check(name, given, task, space) if given.check else _train(name, given, task, space)


def _repeats(task: Task) -> int:
    """Return how often a trial trains its record: more than once where one sample decides too much."""
    if task.repeats > 1 or not isinstance(task.data, InMemoryData):
        return task.repeats
    return SEVERAL if len(task.data.splits["validation"].inputs) < FEW else 1


def _check_places(given: argparse.Namespace) -> None:
    """Refuse two stores in one place, which would spoil each other.

    Raises:
        InputError: if there are.
    """
    seen: dict[Path, str] = {}
    for flag, place in _places(given).items():
        if place is not None and seen.setdefault(place, flag) != flag:
            raise InputError(f"{seen[place]} and {flag} must be different places (got {place} for both)")


def _places(given: argparse.Namespace) -> dict[str, Path | None]:
    """Return the files and folders that a study reads, by flag; None for a server."""
    return {
        "--storage": storage_file(given.storage),
        "--tracking-uri": tracking_file(given.tracking_uri),
        "--checkpoints": Path(given.checkpoints).expanduser().absolute() if given.checkpoints else None,
    }


def _train(name: str, given: argparse.Namespace, task: Task, space: Space[Any]) -> int:
    create = partial(
        create_study,
        name,
        direction=task.direction,
        epochs=task.epochs,
        storage=given.storage,
        sampler=given.sampler,
        pruner=given.pruner,
        seed=given.seed,
    )
    summary = optimize(
        StudyMaker(name, create),
        task,
        n_trials=given.n_trials,
        space=space,
        timeout=given.timeout,
        at_timeout=given.at_timeout,
        seed=given.seed,
        workers=given.workers,
        devices_per_trial=given.devices_per_trial,
        ray_address=given.ray_address,
        stall_minutes=given.stall_minutes,
        fuse=given.fuse,
        tracking_uri=given.tracking_uri,
        checkpoints=given.checkpoints,
        keep=given.keep,
        finalists=given.finalists,
        seeds=given.seeds,
        verdict_budget=given.verdict_budget,
        margin=given.margin,
        prefer_simple=given.prefer_simple,
        ablate=given.ablate,
        same_task=given.same_task,
    )
    _print(f"\n{summary.text()}\n\n{summary.look}")
    return 3 if summary.missing else 0


def _report(name: str, given: argparse.Namespace, task: Task) -> int:
    """Write the report of a study, as HTML and in Markdown."""
    path = Path(given.report).expanduser()
    check_report_file(path, [place for place in _places(given).values() if place is not None])
    study = load_study(name, given.storage)
    inspect(study)
    if (verdict := verdict_of(study)) is None:
        raise InputError(f"study {name!r} has no verdict yet: run it with --finalists first")
    report = report_of(study, task, verdict)
    write_report(report, path)
    _print(report.answer, f"written to {path} and {path.with_suffix('.md')}")
    return 0


def _check(name: str, given: argparse.Namespace, task: Task, space: Space[Any]) -> int:
    """Tell whether Optuna and MLflow agree; mend MLflow if that is asked for."""
    try:
        study = load_study(name, given.storage)
    except UnknownStudy as error:  # a storage that cannot be read says nothing about MLflow
        found = []
        with contextlib.suppress(InputError):  # there is no MLflow either
            found = left_behind(name, given.tracking_uri)
        if not found:
            raise
        return _swept(name, given, [str(error), *found])
    inspect(study)
    trials = finished(study)
    found = _compared(study, given, task)
    if not trials and found and not lock.held(study):
        return _swept(name, given, found, study.user_attrs.get(MLFLOW_RUN))
    if trials and found and given.repair:
        _check_removals(given, removals(name, given.tracking_uri, study))
        _print(*found, "writing it anew from what Optuna holds")
        _repair(study, given, task, space, counted(trials))
        found = _compared(study, given, task)
    parts = [part for part in PARTS if kept(part) in study.user_attrs]
    beside = f" and the runs of its {' and its '.join(parts)}" if parts else ""
    agreed = f"Optuna and MLflow agree: {count(trials)}{beside}"
    _print(*(found or [agreed]))
    return int(bool(found))


def _compared(study: optuna.Study, given: argparse.Namespace, task: Task) -> list[str]:
    """Say where MLflow differs from Optuna, in the search and in what follows it."""
    found = differences(study, task, given.tracking_uri)
    for part in PARTS:
        with contextlib.suppress(UnknownStudy):  # there is none
            own = load_study(part_name(study.study_name, part), given.storage)
            inspect(own)
            lines = differences(own, task, given.tracking_uri) if MLFLOW_RUN in own.user_attrs else []
            found += [f"{part}: {line}" for line in lines if line not in found]
    return found


def _repair(
    study: optuna.Study, given: argparse.Namespace, task: Task, space: Space[Any], n_trials: int
) -> None:
    """Write MLflow anew; nothing is trained, for the study holds its trials already."""
    optimize(
        study,
        task,
        n_trials=n_trials,
        space=space,
        seed=given.seed,
        workers="inline",
        tracking_uri=given.tracking_uri,
        checkpoints=given.checkpoints,
        keep=given.keep,
        same_task=given.same_task,
        progress=False,
        repair=True,
    )


def _check_removals(given: argparse.Namespace, unknown: Sequence[str]) -> None:
    """Refuse to remove more than a handful, unless that was said: the storage may be the wrong one.

    Raises:
        InputError: if it was not.
    """
    if len(unknown) > HANDFUL and not given.remove:
        raise InputError(
            f"--repair would remove {len(unknown)} things from MLflow that the storage does not know ("
            f"{', '.join(unknown[:3])}, …): if that is the right storage, and whole, add --remove"
        )


def _swept(name: str, given: argparse.Namespace, found: Sequence[str], run_id: str | None = None) -> int:
    """Tell of what is left in MLflow of a study that Optuna holds nothing of, and remove it."""
    if given.repair:
        _check_removals(given, removals(name, given.tracking_uri))
    _print(*found)
    if given.repair:
        sweep(given.tracking_uri, name, run_id)
        _print("removed: MLflow holds no more of it than Optuna, which is nothing")
    return int(not given.repair)


def _print(*lines: str) -> None:
    sys.stdout.write(redacted("\n".join(lines)) + "\n")
