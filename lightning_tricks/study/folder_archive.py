"""A study's results without MLflow: report, models and description as files in its folder."""

import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import optuna

from lightning_tricks.errors import one_line
from lightning_tricks.module.kept import MODULE
from lightning_tricks.redaction import redacted
from lightning_tricks.search.archive import REPORT, Archive, Models
from lightning_tricks.task.task import Task

PAGE = "README.md"
"""Name of the file that describes the folder."""
_VERSION = "1"
"""Version of every model: a new one replaces the old."""


class FolderArchive(Archive):
    """An archive of files in a folder.

    Args:
        path: the folder; it must exist.
        warn: prints a line if a file cannot be written.
        models: the folder for models; by default `path`.
    """

    def __init__(self, path: Path, warn: Callable[[str], None], models: Path | None = None) -> None:
        self.path, self.warn, self.models = path, warn, models or path

    @property
    def look(self) -> str:
        found = "The report:" if (self.path / REPORT).exists() else "What was found:"
        name = REPORT if (self.path / REPORT).exists() else PAGE
        return f"{found}  {self.path / name}"

    @contextmanager
    def beside(self, part: str, study: optuna.Study, task: Task) -> Iterator["FolderArchive"]:
        del study, task
        own = FolderArchive(self.path / part, self.warn, self.models)
        yield own
        self.whole &= own.whole

    @property
    def missing(self) -> str:
        return "" if self.whole else f"{self.path} lacks some of the results: run the same command again"

    def _write(self, path: Path, text: str) -> None:
        try:
            path.parent.mkdir(exist_ok=True)
            path.write_text(redacted(f"{text.rstrip()}\n"), encoding="utf-8")
        except OSError as error:  # such as a full disk
            self.whole = False
            self.warn(f"{path} cannot be written: {one_line(error)}")

    def describe(
        self,
        text: str,
        values: Mapping[str, float] | None = None,
        scores: Mapping[str, float] | None = None,
        label: str = "",
    ) -> None:
        del values, scores, label  # the text holds them
        self._write(self.path / PAGE, text)

    def holds_files(self, names: Collection[str]) -> bool:
        return all((self.path / name).exists() for name in names)

    def keep_report(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            self._write(self.path / name, text)

    def register(self, models: Models) -> tuple[str, bool]:
        place = self.models / models.alias
        part = place.with_name(f"{models.alias}.{secrets.token_hex(8)}.part")
        part.mkdir(parents=True)
        for file in models.files:
            shutil.copy(file, part)
        shutil.rmtree(place, ignore_errors=True)
        part.replace(place)
        return _VERSION, False

    def describe_model(self, alias: str, version: str, text: str, page: str = "") -> None:
        del version, page
        self._write(self.models / alias / PAGE, text)

    def holds(self, versions: Mapping[str, str]) -> bool:
        return all((self.models / alias / MODULE).exists() for alias in versions)

    def address(self, alias: str, version: str = "") -> str:
        del version
        return str(self.models / alias)
