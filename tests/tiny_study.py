"""A study of seconds, for the tests to start, stop and kill."""

import os
import sys
import time

from conftest import mlp, small_data

from lightning_tricks import Task, main


def backbone(tricks):
    if "SLOW" in os.environ:
        time.sleep(float(os.environ["SLOW"]))
    return mlp()


def task():
    return Task(name="tiny", data=small_data(), backbone=backbone, epochs=3)


if __name__ == "__main__":
    sys.exit(main(task, n_trials=6))
