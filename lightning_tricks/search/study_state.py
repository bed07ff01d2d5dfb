"""A study's state: its baseline, its champion, its test scores."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import optuna
from optuna.trial import FrozenTrial

from lightning_tricks.search.keys import (
    ABLATION,
    BASELINE,
    CHAMPION,
    MLFLOW_RUN,
    PART_OF,
    PART_RUNS,
    ROLE,
    TESTS,
    VERDICT,
    kept,
)
from lightning_tricks.search.optuna_internals import storage_of
from lightning_tricks.search.outcomes import Champion, Outcome
from lightning_tricks.selection.ablation import Ablation
from lightning_tricks.selection.result import Verdict
from lightning_tricks.task.task import Task
from lightning_tricks.tricks.recipe import Tricks


@dataclass(frozen=True)
class StudyState:
    """What a study holds in addition to its trials, and what gives them their roles."""

    baseline: Tricks
    """The recipe that all others are compared with."""
    champion: int | None = None
    """Number of the trial whose model is registered."""
    alias: str = ""
    """Alias of the registered model: `champion` after a verdict, else `best`."""
    tests: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Metrics on the test split, by trial number; each trial is tested once."""
    verdict: Verdict | None = None
    """The verdict over fresh seeds; None if there is none yet."""
    study: str = ""
    """Name of the study, and of the registered model."""
    version: str | None = None
    """Version of the registered model."""
    ranked: bool = True
    """Whether its trials are ranked in a table: true for a search, false for its parts."""

    @classmethod
    def read(cls, study: optuna.Study, task: Task) -> Self:
        """Read a study's state."""
        held = study.user_attrs
        recipe, champion = held.get(BASELINE), held.get(CHAMPION, {})
        return cls(
            baseline=task.reference() if recipe is None else task.tricks.parse(recipe),
            champion=champion.get("trial"),
            alias=champion.get("alias", ""),
            tests={int(number): metrics for number, metrics in held.get(TESTS, {}).items()},
            verdict=verdict_of(study),
            study=study.study_name,
            version=champion.get("version"),
            ranked=PART_OF not in held,
        )

    def is_of_verdict(self, trial: FrozenTrial) -> bool:
        """Return whether the verdict names this trial."""
        return self.verdict is not None and trial.number == self.verdict.trial

    def role(self, trial: FrozenTrial) -> str:
        """Return a trial's roles in the study, in words; empty for most."""
        outcome = Outcome.read(trial)
        repeated = None if outcome is None else outcome.duplicate_of
        roles = [
            self.alias if trial.number == self.champion else "",
            "candidate" if self.verdict is not None and trial.number == self.verdict.rival else "",
            trial.user_attrs.get(ROLE, ""),
            "" if repeated is None else f"repeat of {repeated}",
        ]
        return " · ".join(role for role in roles if role)


def verdict_of(study: optuna.Study) -> Verdict | None:
    """Return a study's verdict; None if it has none."""
    data = study.user_attrs.get(kept(VERDICT))
    return None if data is None else Verdict.read(data)


def ablation_of(study: optuna.Study) -> Ablation | None:
    """Return a study's ablation; None if it has none."""
    data = study.user_attrs.get(kept(ABLATION))
    return None if data is None else Ablation.read(data)


def known_runs(study: optuna.Study) -> set[str]:
    """Return the ids of a study's MLflow runs: those of its search and its parts.

    Args:
        study: the search, or a part of it such as its verdict.
    """
    name = study.user_attrs.get(PART_OF, study.study_name)
    search = optuna.load_study(study_name=name, storage=storage_of(study))
    held = search.user_attrs
    return {held.get(MLFLOW_RUN), *held.get(PART_RUNS, {}).values()} - {None}


def remember_test(study: optuna.Study, number: int, metrics: Mapping[str, float]) -> None:
    """Store a trial's metrics on the test split."""
    study.set_user_attr(TESTS, {**study.user_attrs.get(TESTS, {}), str(number): dict(metrics)})


def remember_champion(study: optuna.Study, champion: Champion) -> None:
    """Store which model is registered for a study."""
    study.set_user_attr(CHAMPION, champion)
