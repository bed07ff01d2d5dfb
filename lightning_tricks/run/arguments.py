"""The command line that every study script shares.

Slow imports wait until the arguments are read, so a mistyped flag shows at once.
"""

import argparse
import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lightning_tricks.errors import ENDING, InputError, TakenOver, Unfinished, user_code
from lightning_tricks.redaction import redacted
from lightning_tricks.run import values
from lightning_tricks.run.loading import loading
from lightning_tricks.search.choices import PRUNERS, SAMPLERS

if TYPE_CHECKING:
    from lightning_tricks.task.task import Task

ENVIRONMENT = {"--storage": "LIGHTNING_TRICKS_STORAGE", "--tracking-uri": "MLFLOW_TRACKING_URI"}
"""Environment variables that stand in for flags."""
EPILOG = """\
examples:
  %(prog)s                                start, or continue
  %(prog)s --n-trials 100                 continue to 100 trials
  %(prog)s --budget 2h                    all that two hours afford
  %(prog)s --epochs 3 --study-name short  another study, of short trials
  %(prog)s --workers 4                    four trials at a time
  %(prog)s --space narrow.yaml            pin and narrow the search
  %(prog)s --report digits.html           write the report again
  %(prog)s --check                        do Optuna and MLflow agree?
  %(prog)s --check --repair               write MLflow again where they differ

environment:
  LIGHTNING_TRICKS_STORAGE and MLFLOW_TRACKING_URI stand in for --storage and
  --tracking-uri, so that no password is on the command line

exit codes:
  0    the study holds its trials; with --check: Optuna and MLflow agree
  1    with --check: they do not
  2    the input was wrong; a line on the standard error says what
  3    MLflow is incomplete: run the same command again
  4    another program took over the study, because this one did not respond
  5    Ray died and did not start again: the same command continues
  130  interrupted: the same command continues
"""


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Show each flag's default, where it has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        without = action.default is None or action.default is False
        return action.help if without else super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Read the arguments, which win over the environment.

        Raises:
            InputError: if one is wrong; suggests a similar flag.
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

    0: the study holds its trials, or `--check` found that Optuna and MLflow agree. 1: `--check` found
    that they differ. 2: the input was wrong. 3: the study holds its trials, but MLflow was away at the
    end; the same command writes what is missing. 4: another program took over the study, because this
    one did not respond. 5: Ray died and did not start again; the same command continues. 130:
    interrupted; the same command continues. A line on the standard error gives the reason.

    Args:
        make_task: function that makes the task. Its arguments are the values of the script's own
            flags, by name; None for a flag that is not given.
        arguments: arguments in place of the command line's.
        n_trials: default number of trials.
        finalists: default number of the best recipes that train again over fresh seeds.
        repeats: default number of trainings per trial; None for `auto`.
        flags: the script's own flags, such as `--data-dir`, with their help.
    """
    _open_streams()
    try:
        parser = _parser(n_trials, finalists, repeats)
        own = [parser.add_argument(flag, help=meaning).dest for flag, meaning in flags.items()]
        given = parser.read(sys.argv[1:] if arguments is None else arguments)
        if given.n_trials is None and given.budget is None:
            given.n_trials = n_trials

        if sys.stderr.isatty():
            sys.stderr.write("loading torch, Lightning and MLflow …\n")
        with loading():
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


def _open_streams() -> None:
    """Let closed standard streams take what is written, and others replace what they cannot encode."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  # until the program ends
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def _parser(n_trials: int, finalists: int, repeats: int | None = None) -> _Parser:
    parser = _Parser(
        description="Search the training tricks of a task; run it again to go on.",
        epilog=EPILOG,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("the search").add_argument
    add(
        "--n-trials",
        type=values.count,
        help=f"finished trials in the study at the end (default: {n_trials}, or what --budget affords)",
    )
    add(
        "--budget",
        type=values.budget,
        help="what search, verdict and ablation may take together: 2h, 45min, or '3000 epochs'",
    )
    add("--epochs", type=values.count, help="epochs of a full trial (default: the task's)")
    add("--space", metavar="FILE.yaml", help="pins and narrows the search space")
    add("--sampler", choices=SAMPLERS, default="tricks", help="what proposes recipes")
    add("--pruner", choices=PRUNERS, default="pause", help="what pauses or stops trials")
    add(
        "--repeats", type=values.repeats, default=repeats or "auto", help="trainings of a trial, or auto"
    )
    add("--seed", type=values.seed, default=0, help="same seed, same trials")
    add(
        "--learn-from",
        metavar="NAME[@STORAGE]",
        action="append",
        default=[],
        help="an earlier study to learn from when this one begins; may be given several times",
    )
    add("--timeout", type=values.positive, help="seconds after which no new trial starts")
    add(
        "--at-timeout",
        choices=["finish", "requeue"],
        default="finish",
        help="what happens to running trials then",
    )
    add("--same-task", action="store_true", help="continue although the task looks changed")

    add = parser.add_argument_group("the verdict").add_argument
    add(
        "--finalists",
        type=values.number,
        default=finalists,
        help="best recipes that train again; 0: no verdict",
    )
    add("--seeds", type=values.number, default=5, help="fewest fresh seeds for the comparison")
    add(
        "--verdict-budget",
        metavar="N",
        type=values.trainings,
        default=0,
        help="most trainings in the verdict; 0: one for each trial of the search and its repeats",
    )
    add(
        "--margin",
        type=values.positive,
        help="smallest difference that matters, in the unit of the score",
    )
    add("--prefer-simple", action="store_true", help="take a simpler recipe if it is within the margin")
    add("--ablate", action="store_true", help="also measure what each of the champion's tricks is worth")

    add = parser.add_argument_group("where it runs").add_argument
    add("--workers", type=values.workers, default="auto", help="auto, inline, or a number of processes")
    add("--devices-per-trial", type=values.positive, default=1.0, help="a fraction shares a GPU")
    add(
        "--fuse",
        type=values.fuse,
        default="auto",
        help="trainings that run as one program: auto, off or a number",
    )
    add("--ray-address", metavar="HOST:PORT", help="a running Ray cluster, or auto")
    add(
        "--stall-minutes",
        type=values.positive,
        default=30.0,
        help="kill a worker after this many silent minutes",
    )

    add = parser.add_argument_group("what is kept, and where").add_argument
    add("--study-name", type=values.name, help="name of the study (default: the task's name)")
    add("--storage", default="optuna.journal", help="path of a journal file, or an Optuna URL")
    add("--tracking-uri", default="sqlite:///mlflow.db", help="anything MLflow takes, or none")
    add(
        "--checkpoints", metavar="FOLDER", default="checkpoints", help="shared by all nodes on a cluster"
    )
    add("--keep", type=values.count, default=3, help="number of best trials whose weights are kept")

    add = parser.add_argument_group("instead of training").add_argument
    add("--report", metavar="FILE.html", help="write the report of a study with a verdict")
    add("--check", action="store_true", help="say whether Optuna and MLflow agree")
    add("--repair", action="store_true", help="with --check: write MLflow again where they differ")
    add("--remove", action="store_true", help="with --repair: also remove more than five unknown things")
    return parser
