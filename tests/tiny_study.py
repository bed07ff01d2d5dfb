"""A study of seconds, for the tests to start, stop and kill."""

import os
import sys
import time

from conftest import mlp, small_data

import lightning_tricks
from lightning_tricks import Task
from lightning_tricks.run import optimize as optimizing
from lightning_tricks.search.storage import lock


def main(make_task, arguments=None, **defaults):
    """Run a search alone, each recipe trained once by itself: other tests cover the rest.

    Measured group sizes depend on what else runs, and the last bits of a score depend on them.
    """
    given = sys.argv[1:] if arguments is None else arguments
    defaults = {"finalists": 0, "repeats": 1, **defaults}
    return lightning_tricks.main(make_task, ["--fuse", "off", *given], **defaults)


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
    if "MACHINE" in os.environ:
        be_another_machine(os.environ["MACHINE"])
    sys.exit(main(task, n_trials=6))
