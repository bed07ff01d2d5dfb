"""The command line that every study script shares."""

import argparse
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import optuna

from lightning_tricks import lease
from lightning_tricks.agreement import differences, left_behind
from lightning_tricks.errors import InputError, TakenOver, Unfinished, check_name
from lightning_tricks.ledger import MLFLOW_RUN
from lightning_tricks.report import count
from lightning_tricks.samplers import SAMPLERS
from lightning_tricks.search import PRUNERS, create_study, finished, load_study
from lightning_tricks.space import Space
from lightning_tricks.study import optimize
from lightning_tricks.task import Task
from lightning_tricks.tracking import sweep

EPILOG = """\
examples:
  %(prog)s                                begin; again, to go on
  %(prog)s --n-trials 100                 on to 100 trials
  %(prog)s --epochs 3 --study-name short  another study, of short trials
  %(prog)s --workers 4                    four trials at a time
  %(prog)s --space narrow.yaml            pin and narrow the search
  %(prog)s --check                        do Optuna and MLflow agree?

exit codes:
  0    the study holds its trials; with --check: Optuna and MLflow agree
  1    with --check: they do not
  2    the input was wrong; a line on the standard error says what
  3    MLflow is incomplete: run the same command again
  130  interrupted: the same command goes on
"""


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Tell a default where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        without = action.default is None or action.default is False
        return action.help if without else super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """Say what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def main(
    make_task: Callable[..., Task],
    arguments: Sequence[str] | None = None,
    *,
    n_trials: int = 40,
    flags: Mapping[str, str] = {},  # never changed
) -> int:
    """Run a study of a task as the command line says; return the exit code.

    0: the study holds its trials, or `--check` found that Optuna and MLflow agree. 1: it found that
    they do not. 2: the input was wrong. 3: the study holds its trials, but MLflow was away at the end;
    the same command writes what is missing. 4: another program took the study over, since this one
    stood still. 5: Ray died, and could not be started anew; the same command goes on. 130: interrupted;
    the same command goes on. A line on the standard error says what was the matter.

    Args:
        make_task: makes the task, so that a mistake in its data is told like any other; from the
            values of its own flags, by name, None for those that are not given.
        arguments: instead of those of the command line.
        n_trials: the default number of trials.
        flags: of this script alone, such as `--data-dir`, with what they mean.
    """
    try:
        return _run(make_task, arguments, n_trials, flags)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except TakenOver as error:
        sys.stderr.write(f"error: {error}\n")
        return 4
    except Unfinished as error:
        sys.stderr.write(f"error: {error}\n")
        return 5
    except KeyboardInterrupt as interrupt:
        why = f" ({interrupt})" if str(interrupt) else ""
        sys.stderr.write(f"interrupted{why}: run the same command to go on\n")
        return 130


def _run(
    make_task: Callable[..., Task],
    arguments: Sequence[str] | None,
    n_trials: int,
    flags: Mapping[str, str],
) -> int:
    parser = _parser(n_trials)
    own = [parser.add_argument(flag, help=meaning).dest for flag, meaning in flags.items()]
    given = parser.parse_args(arguments)
    task = make_task(**{name: getattr(given, name) for name in own})
    if given.epochs is not None:
        task = replace(task, epochs=given.epochs)
    space = Space(task.tricks)
    if given.space is not None:
        space = Space.from_yaml(task.tricks, given.space)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = given.study_name or task.name
    if given.repair and not given.check:
        raise InputError("--repair goes with --check: it mends what that finds")
    if given.check:
        return _check(name, given, task, space)
    study = create_study(
        name,
        direction=task.direction,
        epochs=task.epochs,
        storage=given.storage,
        sampler=given.sampler,
        pruner=given.pruner,
        seed=given.seed,
    )
    summary = optimize(
        study,
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
        tracking_uri=given.tracking_uri,
        checkpoints=given.checkpoints,
        keep=given.keep,
        same_task=given.same_task,
    )
    sys.stdout.write(f"\n{summary.text()}\n\n{summary.look}\n")
    return 3 if summary.missing else 0


def _check(name: str, given: argparse.Namespace, task: Task, space: Space[Any]) -> int:
    """Tell whether Optuna and MLflow agree; mend MLflow if that is asked for."""
    try:
        study = load_study(name, given.storage)
    except InputError as error:
        if not (found := left_behind(name, given.tracking_uri)):
            raise
        return _swept(name, given, [str(error), *found])
    trials = finished(study)
    found = differences(study, task, given.tracking_uri)
    if not trials and found and not lease.held(study):
        return _swept(name, given, found, study.user_attrs.get(MLFLOW_RUN))
    if trials and found and given.repair:
        sys.stdout.write("\n".join(found) + "\nwriting it anew from what Optuna holds\n")
        optimize(
            study,
            task,
            n_trials=len(trials),
            space=space,
            seed=given.seed,
            workers="inline",
            tracking_uri=given.tracking_uri,
            checkpoints=given.checkpoints,
            keep=given.keep,
            progress=False,
            repair=True,
        )
        found = differences(study, task, given.tracking_uri)
    agreed = f"Optuna and MLflow agree: {count(trials)}"
    sys.stdout.write("\n".join(found or [agreed]) + "\n")
    return int(bool(found))


def _swept(name: str, given: argparse.Namespace, found: Sequence[str], run_id: str | None = None) -> int:
    """Tell of what is left in MLflow of a study that Optuna holds nothing of, and remove it."""
    sys.stdout.write("\n".join(found) + "\n")
    if given.repair:
        sweep(given.tracking_uri, name, run_id)
        sys.stdout.write("removed: MLflow holds no more of it than Optuna, which is nothing\n")
    return int(not given.repair)


def _parser(n_trials: int) -> argparse.ArgumentParser:
    parser = _Parser(
        description="Search the training tricks of a task; run it again to go on.",
        epilog=EPILOG,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--n-trials", type=_count, default=n_trials, help="finished trials the study is to hold")
    add("--epochs", type=_count, help="full budget of a trial (default: the task's)")
    add("--study-name", type=_name, help="of the study (default: the task's name)")
    add("--storage", default="optuna.journal", help="path of a journal file, or an Optuna URL")
    add("--tracking-uri", default="sqlite:///mlflow.db", help="anything MLflow takes")
    add("--sampler", choices=sorted(SAMPLERS), default="tpe", help="what proposes records")
    add("--pruner", choices=sorted(PRUNERS), default="median", help="what stops hopeless trials")
    add("--seed", type=_seed, default=0, help="same seed, same trials")
    add("--space", metavar="FILE.yaml", help="pins and narrows the search space")
    add("--workers", type=_workers, default="auto", help="auto, inline, or a number of processes")
    add("--devices-per-trial", type=_positive, default=1.0, help="a fraction shares a GPU")
    add("--ray-address", metavar="HOST:PORT", help="of a Ray cluster that runs, or auto")
    add("--stall-minutes", type=_positive, default=30.0, help="of silence until a worker is killed")
    add("--timeout", type=_positive, help="seconds after which no further trial begins")
    add("--at-timeout", choices=["finish", "put-back"], default="finish", help="trials under way then")
    add("--checkpoints", metavar="FOLDER", default="checkpoints", help="a shared one on a cluster")
    add("--keep", type=_count, default=3, help="of how many of the best trials weights are kept")
    add("--same-task", action="store_true", help="go on although the task looks changed")
    add("--check", action="store_true", help="only tell whether Optuna and MLflow agree")
    add("--repair", action="store_true", help="with --check: write MLflow anew where they do not")
    return parser


def _count(text: str) -> int:
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 10⁹ (got {text[:40]!r})")
    return int(text)


def _seed(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 10⁹ (got {text[:40]!r})")
    return int(text)


def _name(text: str) -> str:
    try:
        return check_name(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _workers(text: str) -> int | str:
    if text in ("auto", "inline"):
        return text
    try:
        return _count(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"must be auto, inline or a number: {error}") from None


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be a number above 0 (got {text[:40]!r})")
    return value
