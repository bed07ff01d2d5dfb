"""Run a study script after its arguments are read."""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import optuna

from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.errors import InputError, one_line, shown, user_code
from lightning_tricks.process import unchanged
from lightning_tricks.redaction import redacted
from lightning_tricks.run.optimize import optimize
from lightning_tricks.search.inspection import inspect
from lightning_tricks.search.storage.opening import storage_file
from lightning_tricks.search.studies import StudyMaker, create_study, load_study
from lightning_tricks.search.study_state import verdict_of
from lightning_tricks.space.space import Space
from lightning_tricks.task.task import Task
from lightning_tricks.tracking.addresses import tracking_file
from lightning_tricks.verdict.reporting import report_of

_OTHERS = {"study", "task", "space", "progress", "callbacks", "observers", "repair"}
"""Arguments of `optimize` without a flag, or with another value than the flag's."""
OPTIONS = signature(optimize).parameters.keys() - _OTHERS
"""Arguments of `optimize` that have a flag of the same name; a script's own flags go to its task."""
FEW, SEVERAL = 500, 3
"""With fewer validation samples than the first, `--repeats auto` trains each recipe this often."""


@unchanged()
def run(given: argparse.Namespace, make_task: Callable[[], Task]) -> int:
    """Train a study, write its report, or check it; return the exit code.

    Args:
        given: the arguments shared by all study scripts.
        make_task: function that makes the task.

    Raises:
        InputError: if an argument is wrong.
    """
    if given.tracking_uri == "none":
        given.tracking_uri = None
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


def _check(name: str, given: argparse.Namespace, task: Task, space: Space[Any]) -> int:
    """Print whether Optuna and MLflow agree."""
    if given.tracking_uri is None:
        raise InputError("--check compares Optuna and MLflow: it cannot go with --tracking-uri none")
    from lightning_tricks.run.checking import check  # noqa: PLC0415

    return check(name, given, task, space, _print)


def _repeats(task: Task) -> int:
    """Return how often a trial trains its recipe: more than once if validation samples are few."""
    if task.repeats > 1 or not isinstance(task.data, InMemoryData):
        return task.repeats
    return SEVERAL if len(task.data.splits["validation"].inputs) < FEW else 1


def _check_places(given: argparse.Namespace) -> None:
    """Refuse two stores in one place, because they would overwrite each other.

    Raises:
        InputError: if two flags name one place.
    """
    seen: dict[Path, str] = {}
    for flag, place in _places(given).items():
        if place is not None and seen.setdefault(place, flag) != flag:
            raise InputError(f"{seen[place]} and {flag} must be different places (got {place} for both)")


def _places(given: argparse.Namespace) -> dict[str, Path | None]:
    """Return the file or folder of each store by flag; None for a server."""
    return {
        "--storage": storage_file(given.storage),
        "--tracking-uri": tracking_file(given.tracking_uri or ""),
        "--checkpoints": Path(given.checkpoints).expanduser().absolute() if given.checkpoints else None,
    }


def _train(name: str, given: argparse.Namespace, task: Task, space: Space[Any]) -> int:
    create = partial(
        create_study,
        task,
        name=name,
        storage=given.storage,
        sampler=given.sampler,
        pruner=given.pruner,
        seed=given.seed,
    )
    options = {name: value for name, value in vars(given).items() if name in OPTIONS}
    options["learn_from"] = [_source(one, given.storage) for one in given.learn_from]
    summary = optimize(StudyMaker(name, create), task, space=space, **options)
    _print(f"\n{summary}")
    return 3 if summary.missing else 0


def _source(named: str, storage: str) -> optuna.Study:
    """Return an earlier study, named as `NAME` or `NAME@STORAGE`."""
    name, _, place = named.partition("@")
    return load_study(name, place or storage)


def _report(name: str, given: argparse.Namespace, task: Task) -> int:
    """Write the report of a study as HTML and Markdown."""
    # The libraries that draw take seconds to load, and no other command needs them here.
    from lightning_tricks.report.file import check_report_file, write_report  # noqa: PLC0415

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


def _print(*lines: str) -> None:
    """Print to the standard output.

    Raises:
        InputError: if it cannot be written to, as when its disk is full or its reader has gone.
    """
    try:
        sys.stdout.write(redacted("\n".join(lines)) + "\n")
        sys.stdout.flush()
    except OSError as error:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # Python flushes it again at its end
        raise InputError(
            f"the standard output cannot be written to ({one_line(error)}): the study holds what was "
            "found, and the same command prints it"
        ) from None
