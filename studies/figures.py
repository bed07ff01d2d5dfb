"""Types of command-line arguments for the studies that draw a figure."""

import argparse
import os
from pathlib import Path


def at_least(least: int):
    """Return an argument type: a whole number of at least `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"must be a whole number of at least {least} (got {text!r})"
            )
        return int(text)

    return parse


def figure(text: str) -> Path:
    """Return the path of a figure's file, if a figure can be written to it."""
    path = Path(text)
    if (
        not os.access(path.parent, os.W_OK)
        or path.is_dir()
        or path.suffix not in {".png", ".pdf", ".svg"}
    ):
        raise argparse.ArgumentTypeError(
            f"must be a .png, .pdf or .svg in a writable folder (got {text!r})"
        )
    return path
