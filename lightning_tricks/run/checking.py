"""`--check` and `--repair`: whether Optuna and MLflow agree, and how to make them."""

import argparse
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import optuna

from lightning_tricks.errors import InputError, UnknownStudy
from lightning_tricks.report.summary import count
from lightning_tricks.run.optimize import optimize
from lightning_tricks.search.inspection import inspect
from lightning_tricks.search.keys import MLFLOW_RUN, PARTS, kept
from lightning_tricks.search.outcomes import counted, part_name
from lightning_tricks.search.storage import lock
from lightning_tricks.search.studies import finished, load_study
from lightning_tricks.space.space import Space
from lightning_tricks.task.task import Task
from lightning_tricks.tracking.agreement import differences, left_behind, removals
from lightning_tricks.tracking.holdings import sweep

HANDFUL = 5
"""Most things that `--repair` removes from MLflow without `--remove`."""
Print = Callable[..., None]


def check(name: str, given: argparse.Namespace, task: Task, space: Space[Any], show: Print) -> int:
    """Print whether Optuna and MLflow agree; repair MLflow if the user wants it.

    Args:
        name: of the study.
        given: the arguments that all study scripts share.
        task: of the study.
        space: of the search.
        show: prints lines.

    Returns:
        The exit code: 0 if they agree.
    """
    try:
        study = load_study(name, given.storage)
    except UnknownStudy as error:  # a storage that cannot be read says nothing about MLflow
        found = []
        with contextlib.suppress(InputError):  # there is no MLflow either
            found = left_behind(name, given.tracking_uri)
        if not found:
            raise
        return _swept(name, given, show, [str(error), *found])
    inspect(study)
    trials = finished(study)
    found = _compared(study, given, task)
    if not trials and found and not lock.held(study):
        return _swept(name, given, show, found, study.user_attrs.get(MLFLOW_RUN))
    if trials and found and given.repair:
        _check_removals(given, removals(name, given.tracking_uri, study))
        show(*found, "writing it again from Optuna")
        _repair(study, given, task, space, counted(trials))
        found = _compared(study, given, task)
    parts = [part for part in PARTS if kept(part) in study.user_attrs]
    beside = f" and the runs of its {' and its '.join(parts)}" if parts else ""
    agreed = f"Optuna and MLflow agree: {count(trials)}{beside}"
    show(*(found or [agreed]))
    return int(bool(found))


def _compared(study: optuna.Study, given: argparse.Namespace, task: Task) -> list[str]:
    """Return a line for each difference between MLflow and Optuna: search, verdict, ablation."""
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
    """Write MLflow again from Optuna. Nothing is trained, because the study holds its trials."""
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
    """Refuse to remove more than a handful without `--remove`: the storage may be the wrong one.

    Raises:
        InputError: if there is more to remove, and the flag is missing.
    """
    if len(unknown) > HANDFUL and not given.remove:
        raise InputError(
            f"--repair would remove {len(unknown)} things from MLflow that the storage does not know ("
            f"{', '.join(unknown[:3])}, …): if that is the right storage, and whole, add --remove"
        )


def _swept(
    name: str, given: argparse.Namespace, show: Print, found: Sequence[str], run_id: str | None = None
) -> int:
    """Print, and remove, what MLflow holds of a study that Optuna does not know."""
    if given.repair:
        _check_removals(given, removals(name, given.tracking_uri))
    show(*found)
    if given.repair:
        sweep(given.tracking_uri, name, run_id)
        show("removed: MLflow holds nothing of the study now, like Optuna")
    return int(not given.repair)
