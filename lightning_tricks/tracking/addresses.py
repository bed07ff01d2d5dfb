"""Tracking URIs and the files behind them; does not import MLflow."""

from pathlib import Path

SQLITE = "sqlite:///"


def uri_of(place: str | Path) -> str:
    """Return a tracking URI; a path means a SQLite file, or a folder if it has no suffix."""
    if not isinstance(place, Path):
        return place
    path = place.expanduser()
    return f"{SQLITE}{path}" if path.suffix else str(path)


def file_of(uri: str) -> Path:
    """Return the file of a SQLite URI."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]).absolute()


def tracking_file(uri: str) -> Path | None:
    """Return the file of a tracking URI; None if it is not a SQLite database."""
    return file_of(uri) if uri.startswith(SQLITE) else None
