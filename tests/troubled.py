"""A task that goes wrong in training as its recipe says, for the tests of workers."""

import os
import signal
import time
from pathlib import Path
from typing import Annotated, Literal

from conftest import mlp, small_data
from torch import nn

from lightning_tricks import Choice, Task, Tricks

TROUBLES = ("none", "slow", "dies", "dies once", "hangs", "raises")

STEPS = 26
"""Steps of all processes, after which the trouble `dies once` kills one."""


class Troubled(Tricks):
    trouble: Annotated[Literal[TROUBLES], Choice(*TROUBLES)] = "none"


class Net(nn.Module):
    def __init__(self, trouble, log):
        super().__init__()
        self.network, self.trouble, self.log = mlp(), trouble, log

    def forward(self, inputs):
        if self.training:
            self.suffer()
        return self.network(inputs)

    def suffer(self):
        with self.log.open("a") as log:
            log.write(f"{self.trouble} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
        if self.trouble == "slow":
            time.sleep(0.4)
        elif self.trouble == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.trouble == "dies once" and len(steps(self.log.parent)) > STEPS:
            mark = self.log.with_name("died")
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        elif self.trouble == "hangs":
            time.sleep(1e6)
        elif self.trouble == "raises":
            raise RuntimeError("it does not work")


class Backbone:
    def __init__(self, log):
        self.log = log

    def __call__(self, tricks):
        return Net(getattr(tricks, "trouble", "none"), self.log)


def task(folder, **changes):
    log = Path(folder, "steps.log")
    return Task(
        **{
            "name": "tiny",
            "data": small_data(),
            "backbone": Backbone(log),
            "tricks": Troubled,
            "epochs": 5,
            **changes,
        }
    )


def steps(folder):
    """Return the lines that training steps wrote."""
    log = Path(folder, "steps.log")
    return log.read_text().splitlines() if log.exists() else []
