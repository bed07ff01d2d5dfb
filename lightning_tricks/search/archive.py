"""Where people find what a study found."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
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
"""Aliases of registered models: the recipe to use by a verdict, and the best score of a search that has
none; the champion's models of several seeds as one have the alias `ENSEMBLE`."""
REPORT = "report.html"
"""Name of the report's page."""


@dataclass(frozen=True)
class Models:
    """Models of one recipe that are to be registered together."""

    alias: str
    """Of their version."""
    home: int
    """Number of the trial with which they are kept."""
    trials: tuple[int, ...]
    """Numbers of those whose models these are."""
    files: Sequence[Path]
    """What `load_with_tricks` reads."""
    answering: Answering | None
    """The network that answers by itself; None if there is none."""


class Archive(Observer, ABC):
    """Where people find a study: MLflow, or files in the study's own folder.

    What cannot be written ends no study: a warning says so, and Optuna holds the truth.
    """

    whole = True
    """Whether it holds all that it was told; certain once it is closed."""

    @property
    @abstractmethod
    def look(self) -> str:
        """How to look at it, for a terminal."""

    @property
    def missing(self) -> str:
        """What it lacks of the study, and what to do; empty if it holds all."""
        return ""

    @abstractmethod
    def beside(self, part: str, study: optuna.Study, task: Task) -> AbstractContextManager["Archive"]:
        """Open one for a part of the study, such as its verdict."""

    def place(self, trials: Iterable[FrozenTrial]) -> None:
        """Show where finished trials stand by now: as what, and with which test scores."""

    def links(self, study_state: StudyState) -> str:
        """Lead from the study to its report, its model and its parts, in Markdown."""
        del study_state
        return ""

    def flush(self, seconds: float) -> bool:
        """Wait until all that was told is written; return whether it is."""
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
        """Write what is said of the study.

        Args:
            text: in Markdown.
            values: numbers by names of ours.
            scores: numbers by the names of the user's metrics.
            label: of the verdict.
        """

    @abstractmethod
    def keep_report(self, files: Mapping[str, str]) -> None:
        """Write the files of a report, by their names."""

    @abstractmethod
    def register(self, models: Models) -> tuple[str, bool]:
        """Register models; return their version, and whether the network was exported."""

    @abstractmethod
    def describe_model(self, alias: str, version: str, text: str, page: str = "") -> None:
        """Write the page of a version; and with `page` that of the registered model, too."""

    @abstractmethod
    def holds(self, versions: Mapping[str, str]) -> bool:
        """Tell whether registered versions, by alias, are there with all their files."""

    @abstractmethod
    def address(self, alias: str, version: str = "") -> str:
        """Return what `load_with_tricks` takes for the model of an alias, or for this very version."""

    def run_of(self, number: int) -> str | None:
        """Return the id of a trial's run; None where there are no runs."""
        del number
        return None
