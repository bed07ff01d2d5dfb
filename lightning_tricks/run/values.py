"""Read the values of flags; what is wrong is said in one line."""

import argparse
import math
import re
from collections.abc import Callable

from lightning_tricks.budget import Budget
from lightning_tricks.errors import InputError, check_name, quoted


def _count_or(*words: str) -> Callable[[str], int | str]:
    """Return what reads a number, or one of some words."""
    known = f"{', '.join(words)} or a" if words else "a"

    def read(text: str) -> int | str:
        if text in words:
            return text
        if re.fullmatch(r"0*[1-9][0-9]{0,8}", text):
            return int(text)
        rule = f"must be {known} whole number from 1 to 10⁹"
        raise argparse.ArgumentTypeError(f"{rule} (got {quoted(text)})")

    return read


count = _count_or()
workers = _count_or("auto", "inline")
fuse = _count_or("auto", "off")
repeats = _count_or("auto")


def _from_zero(digits: int, most: str) -> Callable[[str], int]:
    """Return a reader of whole numbers from 0 to the given maximum."""

    def read(text: str) -> int:
        if re.fullmatch(rf"[0-9]{{1,{digits}}}", text):
            return int(text)
        rule = f"must be a whole number from 0 to {most}"
        raise argparse.ArgumentTypeError(f"{rule} (got {quoted(text)})")

    return read


number = _from_zero(3, "999")
trainings = _from_zero(6, "999999")
seed = _from_zero(9, "10⁹")


def name(text: str) -> str:
    """Read the name of a study."""
    try:
        return check_name(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def budget(text: str) -> str:
    """Read a budget: a time, or a number of epochs."""
    try:
        return str(Budget.read(text))
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> float:
    """Read a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be a number above 0 (got {quoted(text)})")
    return value
