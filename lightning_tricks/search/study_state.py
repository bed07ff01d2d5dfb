"""Where a study stands: its baseline, its champion, its test scores."""

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
    """What a study holds beside its trials, and tells each of them apart by."""

    baseline: Tricks
    """The recipe of the first trial, which the others are compared with."""
    champion: int | None = None
    """Number of the trial whose recipe is registered as the one to use."""
    alias: str = ""
    """Alias of the registered model: `champion` by a verdict, `best` of a search alone."""
    tests: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """The metrics on the test split, by trial number; it is looked at once for each."""
    verdict: Verdict | None = None
    """What was found over fresh seeds."""
    study: str = ""
    """Its name, which is that of the registered model."""
    version: str | None = None
    """Of the registered model, the one that is the champion's."""
    ranked: bool = True
    """Whether its trials stand in the table of the search: those of a verdict or an ablation do not."""

    @classmethod
    def read(cls, study: optuna.Study, task: Task) -> Self:
        """Read where a study stands."""
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
        """Tell whether a trial has the recipe that the verdict named."""
        return self.verdict is not None and trial.number == self.verdict.trial

    def role(self, trial: FrozenTrial) -> str:
        """Say what a trial is to the study; empty for most."""
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
    """Return the verdict that a study holds; None if it has none."""
    data = study.user_attrs.get(kept(VERDICT))
    return None if data is None else Verdict.read(data)


def ablation_of(study: optuna.Study) -> Ablation | None:
    """Return the ablation that a study holds; None if it has none."""
    data = study.user_attrs.get(kept(ABLATION))
    return None if data is None else Ablation.read(data)


def known_runs(study: optuna.Study) -> set[str]:
    """Return the ids of the runs in MLflow that are a study's: of its search, and of what follows that.

    Args:
        study: the search, or a part of it such as its verdict.
    """
    name = study.user_attrs.get(PART_OF, study.study_name)
    search = optuna.load_study(study_name=name, storage=storage_of(study))
    held = search.user_attrs
    return {held.get(MLFLOW_RUN), *held.get(PART_RUNS, {}).values()} - {None}


def remember_test(study: optuna.Study, number: int, metrics: Mapping[str, float]) -> None:
    """Keep a trial's metrics on the test split."""
    study.set_user_attr(TESTS, {**study.user_attrs.get(TESTS, {}), str(number): dict(metrics)})


def remember_champion(study: optuna.Study, champion: Champion) -> None:
    """Keep what is registered of a study."""
    study.set_user_attr(CHAMPION, champion)
