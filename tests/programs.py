"""Programs that tests start. Nothing here has a time limit: a busy machine is no failure.

A test that waits for ever is found by pytest's `faulthandler_timeout`, which prints where it waits.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SCRIPT = Path(__file__).with_name("tiny_study.py")


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start a study of `tiny_study.py` as a program."""
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds."""
    while not condition():
        time.sleep(0.05)


def wait_for(process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    """Wait until the condition holds; fail if the program ends before it does."""
    while not condition():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)


def end_of(process: subprocess.Popen[str]) -> str:
    """Wait until the program ends; return what it wrote to standard error."""
    return process.communicate()[1]
