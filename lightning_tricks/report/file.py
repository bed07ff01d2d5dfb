"""A report as two files, HTML and Markdown, which take the place of nothing but a report."""

import secrets
from collections.abc import Iterable
from pathlib import Path

from lightning_tricks.errors import InputError, one_line
from lightning_tricks.report.page import MARK, Report


def check_report_file(path: Path, taken: Iterable[Path]) -> None:
    """Look whether a report may be written to a file; write nothing.

    Args:
        path: of the HTML file.
        taken: files and folders that the study reads.

    Raises:
        InputError: if it may not.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(
            f"--report names an HTML file, such as report.html; "
            f"Markdown is written next to it (got {path})"
        )
    for each in (path, path.with_suffix(".md")):
        place = each.resolve()
        if any(place.is_relative_to(other.resolve()) for other in taken):
            raise InputError(f"--report must be a place that the study does not read (got {path})")
        if each.exists() and not _is_report(each):
            raise InputError(
                f"{each} is there already and is no report, so it is not replaced: give --report "
                "another name, or move that file away"
            )


def write_report(report: Report, path: Path) -> None:
    """Write a report as HTML, and next to it in Markdown. An older report stays whole until then.

    Raises:
        InputError: if they cannot be written.
    """
    try:
        _replace(path, report.html())
        _replace(path.with_suffix(".md"), report.markdown())
    except OSError as error:
        raise InputError(f"the report cannot be written: {one_line(error)}") from None


def _is_report(path: Path) -> bool:
    """Tell whether a file was written here: any other may be somebody's only copy."""
    try:
        return path.is_file() and MARK in path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _replace(path: Path, text: str) -> None:
    """Put a text in the place of a file, in one step."""
    path = path.resolve()
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
