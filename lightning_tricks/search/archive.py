"""The interface to a study's results: MLflow or the study's folder."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from lightning_tricks.module.ensemble import Answering
from lightning_tricks.search.observer import Observer
from lightning_tricks.search.study_state import StudyState
from lightning_tricks.task.task import Task

CHAMPION, BEST = "champion", "best"
"""Aliases of registered models: the verdict's champion; without a verdict, the best trial of the search.
The ensemble of the champion's models over several seeds has the alias `ENSEMBLE`."""
REPORT, MARKDOWN_REPORT = "report.html", "report.md"
"""File names of the report."""


@dataclass(frozen=True)
class Models:
    """Models of one recipe, to register together."""

    alias: str
    """Alias of their version."""
    home: int
    """Number of the trial that they are stored with."""
    trials: tuple[int, ...]
    """Numbers of the trials that trained them."""
    files: Sequence[Path]
    """Files that `load_with_tricks` reads."""
    answering: Answering | None
    """Network that predicts without the training code; None if there is none."""


class Archive(Observer, ABC):
    """A study's results for people: in MLflow, or as files in the study's folder.

    A failed write does not end the study: the user gets a warning, and Optuna still has the data.
    """

    whole = True
    """Whether all writes so far succeeded; final once it is closed."""

    @property
    @abstractmethod
    def look(self) -> str:
        """Terminal line that says how to open it."""

    @property
    def missing(self) -> str:
        """Message on what is missing and what to do; empty if complete."""
        return ""

    @abstractmethod
    def beside(self, part: str, study: optuna.Study, task: Task) -> AbstractContextManager["Archive"]:
        """Open the archive of a part of the study, such as its verdict."""

    def place(self, trials: Iterable[FrozenTrial]) -> None:
        """Update the roles and test scores shown for finished trials."""

    def links(self, study_state: StudyState) -> str:
        """Return Markdown links from the study to its report, its model and its parts."""
        del study_state
        return ""

    def flush(self, seconds: float) -> bool:
        """Wait until all writes are done; return whether they are."""
        del seconds
        return True

    @abstractmethod
    def describe(
        self,
        text: str,
        values: Mapping[str, float] | None = None,
        scores: Mapping[str, float] | None = None,
        label: str = "",
    ) -> None:
        """Write the study's description.

        Args:
            text: the description, in Markdown.
            values: numbers under this package's names.
            scores: numbers under the names of the user's metrics.
            label: the verdict's label.
        """

    @abstractmethod
    def holds_files(self, names: Collection[str]) -> bool:
        """Return whether files with these names were written for the study."""

    @abstractmethod
    def keep_report(self, files: Mapping[str, str]) -> None:
        """Write the files of a report: their texts by name."""

    @abstractmethod
    def register(self, models: Models) -> tuple[str, bool]:
        """Register models; return their version and whether the network was exported."""

    @abstractmethod
    def describe_model(self, alias: str, version: str, text: str, page: str = "") -> None:
        """Write the description of a version; with `page`, also that of the registered model."""

    @abstractmethod
    def holds(self, versions: Mapping[str, str]) -> bool:
        """Return whether the registered versions (by alias) exist with all their files."""

    @abstractmethod
    def address(self, alias: str, version: str = "") -> str:
        """Return the address that `load_with_tricks` takes for an alias or, if given, a version."""

    def run_of(self, number: int) -> str | None:
        """Return the id of a trial's MLflow run; None without MLflow."""
        del number
        return None
