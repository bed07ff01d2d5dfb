"""What the studies that draw a figure share on their command lines."""

import argparse
import os
from pathlib import Path


def at_least(least: int):
    """Return a type of argument: a whole number that is no smaller."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"must be a whole number of at least {least} (got {text!r})"
            )
        return int(text)

    return parse


def figure(text: str) -> Path:
    """Take the name of a file that a figure can be written to."""
    path = Path(text)
    if (
        not os.access(path.parent, os.W_OK)
        or path.is_dir()
        or path.suffix not in {".png", ".pdf", ".svg"}
    ):
        raise argparse.ArgumentTypeError(
            f"must be a .png, .pdf or .svg in a folder that can be written to (got {text!r})"
        )
    return path
