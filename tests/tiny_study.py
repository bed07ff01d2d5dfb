"""A study of seconds, for the tests to start, stop and kill."""

import functools
import os
import sys
import time

from conftest import as_asked, mlp, small_data

import lightning_tricks
from lightning_tricks import Task
from lightning_tricks.run import optimize as optimizing
from lightning_tricks.search.storage import lock
from lightning_tricks.training.group_size import GroupSize

main = functools.partial(lightning_tricks.main, finalists=0, repeats=1)
"""Runs a search alone, each recipe trained once: other tests cover verdicts and repeats."""


def backbone(tricks):
    if "SLOW" in os.environ:
        time.sleep(float(os.environ["SLOW"]))
    return mlp()


def task():
    return Task(name="tiny", data=small_data(), backbone=backbone, epochs=3)


def check_at_once():
    """Let only trainings be slow, not the many networks that are made before the first."""
    whole = optimizing.check

    def check(*given):
        slow = os.environ.pop("SLOW", None)
        found = whole(*given)
        if slow is not None:
            os.environ["SLOW"] = slow
        return found

    optimizing.check = check


def be_another_machine(name):
    """Hold the study like another machine, and give its holder little time."""
    lock._boot = lambda: name
    lock.BEAT_SECONDS, lock.WATCH_SECONDS = 0.5, 4.0


if __name__ == "__main__":
    check_at_once()
    GroupSize.of = as_asked  # measured sizes depend on what else runs, and last bits depend on them
    if "MACHINE" in os.environ:
        be_another_machine(os.environ["MACHINE"])
    sys.exit(main(task, n_trials=6))
