"""The command line that every study script shares.

It imports what takes seconds only once the arguments are read: a mistyped flag is told at once.
"""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from lightning_tricks.errors import (
    ENDING,
    InputError,
    TakenOver,
    Unfinished,
    user_code,
)
from lightning_tricks.redaction import redacted
from lightning_tricks.run import values
from lightning_tricks.search.choices import PRUNERS, SAMPLERS

if TYPE_CHECKING:
    from lightning_tricks.task.task import Task

ENVIRONMENT = {"--storage": "LIGHTNING_TRICKS_STORAGE", "--tracking-uri": "MLFLOW_TRACKING_URI"}
"""Where these flags come from if they are not given."""
EPILOG = """\
examples:
  %(prog)s                                begin; again, to go on
  %(prog)s --n-trials 100                 on to 100 trials
  %(prog)s --epochs 3 --study-name short  another study, of short trials
  %(prog)s --workers 4                    four trials at a time
  %(prog)s --space narrow.yaml            pin and narrow the search
  %(prog)s --report digits.html           write the report again
  %(prog)s --check                        do Optuna and MLflow agree?
  %(prog)s --check --repair               write MLflow anew where they do not

environment:
  LIGHTNING_TRICKS_STORAGE and MLFLOW_TRACKING_URI stand in for --storage and
  --tracking-uri, so that no password is on the command line

exit codes:
  0    the study holds its trials; with --check: Optuna and MLflow agree
  1    with --check: they do not
  2    the input was wrong; a line on the standard error says what
  3    MLflow is incomplete: run the same command again
  4    another program took the study over, since this one stood still
  5    Ray died and could not be started anew: the same command goes on
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

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Read the arguments, which win over the environment.

        Raises:
            InputError: if one is wrong; names a flag that is like one that is not known.
        """
        found = {flag: os.environ.get(name) for flag, name in ENVIRONMENT.items()}
        given = [f"{flag}={value}" for flag, value in found.items() if value]
        known, unknown = self.parse_known_args([*given, *arguments])
        if unknown:
            flag = unknown[0].partition("=")[0]
            close = difflib.get_close_matches(flag, re.findall(r"--[a-z-]+", self.format_usage()), n=1)
            hint = f"did you mean {close[0]}?" if close else "--help lists the flags"
            shown = " ".join(redacted(argument, whole=True) for argument in unknown)
            self.error(f"unrecognized arguments: {shown}; {hint}")
        return known


def main(
    make_task: "Callable[..., Task]",
    arguments: Sequence[str] | None = None,
    *,
    n_trials: int = 40,
    finalists: int = 6,
    repeats: int | None = None,
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
        finalists: the default number of the best recipes that are run again over fresh seeds.
        repeats: the default number of trainings of a trial; None is `auto`.
        flags: of this script alone, such as `--data-dir`, with what they mean.
    """
    try:
        parser = _parser(n_trials, finalists, repeats)
        own = [parser.add_argument(flag, help=meaning).dest for flag, meaning in flags.items()]
        given = parser.read(sys.argv[1:] if arguments is None else arguments)

        if sys.stderr.isatty():
            sys.stderr.write("loading torch, Lightning and MLflow …\n")
        with _waiting_passively():
            from lightning_tricks.run.program import run

        with user_code("your code ended the study", of=ENDING):
            return run(given, partial(make_task, **{name: getattr(given, name) for name in own}))
    except (InputError, TakenOver, Unfinished) as error:
        sys.stderr.write(f"error: {error}\n")
        return {TakenOver: 4, Unfinished: 5}.get(type(error), 2)
    except KeyboardInterrupt as interrupt:
        why = f" ({interrupt})" if str(interrupt) else ""
        sys.stderr.write(f"interrupted{redacted(why)}: run the same command to go on\n")
        return 130


@contextmanager
def _waiting_passively() -> Iterator[None]:
    """Let the threads of what is imported sleep while they wait: spinning ones keep busy cores busy."""
    variable = "OMP_WAIT_POLICY"  # which is read once, when torch is loaded
    own = variable in os.environ
    os.environ.setdefault(variable, "PASSIVE")
    yield
    if not own:
        del os.environ[variable]


def _parser(n_trials: int, finalists: int, repeats: int | None = None) -> _Parser:
    parser = _Parser(
        description="Search the training tricks of a task; run it again to go on.",
        epilog=EPILOG,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("the search").add_argument
    add("--n-trials", type=values.count, default=n_trials, help="finished trials the study is to hold")
    add("--epochs", type=values.count, help="of a full trial (default: the task's)")
    add("--space", metavar="FILE.yaml", help="pins and narrows the search space")
    add("--sampler", choices=SAMPLERS, default="tricks", help="what proposes recipes")
    add("--pruner", choices=PRUNERS, default="median", help="what stops hopeless trials")
    add(
        "--repeats", type=values.repeats, default=repeats or "auto", help="trainings of a trial, or auto"
    )
    add("--seed", type=values.seed, default=0, help="same seed, same trials")
    add("--timeout", type=values.positive, help="seconds after which no further trial begins")
    add("--at-timeout", choices=["finish", "requeue"], default="finish", help="trials under way then")
    add("--same-task", action="store_true", help="go on although the task looks changed")

    add = parser.add_argument_group("the verdict").add_argument
    add(
        "--finalists", type=values.number, default=finalists, help="best recipes that run again; 0: none"
    )
    add(
        "--seeds",
        type=values.number,
        default=5,
        help="fewest fresh seeds that compare with the baseline",
    )
    add(
        "--verdict-budget",
        metavar="N",
        type=values.trainings,
        default=0,
        help="most trainings of the verdict; 0: as many as the search took",
    )
    add(
        "--margin",
        type=values.positive,
        help="smallest difference that matters, in the unit of the score",
    )
    add("--prefer-simple", action="store_true", help="take a simpler recipe if it is within the margin")
    add("--ablate", action="store_true", help="tell what each of the champion's tricks is worth, too")

    add = parser.add_argument_group("where it runs").add_argument
    add("--workers", type=values.workers, default="auto", help="auto, inline, or a number of processes")
    add("--devices-per-trial", type=values.positive, default=1.0, help="a fraction shares a GPU")
    add("--fuse", type=values.fuse, default="auto", help="trainings done as one: auto, off or a number")
    add("--ray-address", metavar="HOST:PORT", help="of a Ray cluster that runs, or auto")
    add(
        "--stall-minutes", type=values.positive, default=30.0, help="of silence until a worker is killed"
    )

    add = parser.add_argument_group("what is kept, and where").add_argument
    add("--study-name", type=values.name, help="of the study (default: the task's name)")
    add("--storage", default="optuna.journal", help="path of a journal file, or an Optuna URL")
    add("--tracking-uri", default="sqlite:///mlflow.db", help="anything MLflow takes, or none")
    add("--checkpoints", metavar="FOLDER", default="checkpoints", help="a shared one on a cluster")
    add("--keep", type=values.count, default=3, help="of how many of the best trials weights are kept")

    add = parser.add_argument_group("instead of training").add_argument
    add("--report", metavar="FILE.html", help="write the report of a study that has its verdict")
    add("--check", action="store_true", help="tell whether Optuna and MLflow agree")
    add("--repair", action="store_true", help="with --check: write MLflow anew where they do not")
    add("--remove", action="store_true", help="with --repair: remove much that Optuna does not know")
    return parser
