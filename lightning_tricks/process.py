"""Restores the state of the caller's process after training."""

import logging
import os
import random
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from lightning_tricks.redaction import redacted

VARIABLES = ("PL_", "MLFLOW_", "_MLFLOW_", "PGCONNECT_TIMEOUT", "CUBLAS_WORKSPACE_CONFIG")
"""Prefixes of environment variables that training and recording set."""


@contextmanager
def unchanged() -> Iterator[None]:
    """Restore the process at the end, because training changes global state.

    This covers: random states of torch, NumPy and Python; environment variables of Lightning, MLflow
    and PostgreSQL; levels and states of loggers; warning filters; signal handlers; torch's threads,
    precision and determinism.
    """
    with ExitStack() as stack, warnings.catch_warnings():
        for look in (_random, _environment, _loggers, _signals, _torch):
            stack.callback(look())
        yield


def _random() -> Callable[[], None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - users draw so
    # Reading a device's state would claim the device, and other processes train there.
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]

    def restore() -> None:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        if devices:
            torch.cuda.set_rng_state_all(devices)

    return restore


def _environment() -> Callable[[], None]:
    def ours() -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}

    before = ours()

    def restore() -> None:
        for name in ours().keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)

    return restore


def _loggers() -> Callable[[], None]:
    known = [logging.getLogger(), *map(logging.getLogger, list(logging.Logger.manager.loggerDict))]
    before = {logger: (logger.level, logger.disabled) for logger in known}

    def restore() -> None:
        for logger, (level, disabled) in before.items():
            if logger.level != level:  # setting a level empties the caches of all loggers
                logger.setLevel(level)
            logger.disabled = disabled

    return restore


def _signals() -> Callable[[], None]:
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    return restore


def _torch() -> Callable[[], None]:
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    debug, kind = torch.get_deterministic_debug_mode(), torch.get_default_dtype()
    convolutions = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark

    def restore() -> None:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.set_deterministic_debug_mode(debug)
        torch.set_default_dtype(kind)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = convolutions

    return restore


def command() -> str:
    """Return the command that started this program, without passwords."""
    return shlex.join(["python", *(redacted(argument, whole=True) for argument in sys.argv)])
