"""The data that a study keeps in Optuna's storage in addition to parameters and values.

The study holds its *identity*: the settings that must be equal for trials to be comparable. Each
finished trial holds its *outcome*: the recipe, the curves, the reason. MLflow can be rewritten from
these.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Required, Self

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import FiniteFloat
from typing_extensions import TypedDict

from lightning_tricks import scores
from lightning_tricks.scores import Mode
from lightning_tricks.search.keys import (
    ENSEMBLE,
    OUTCOME,
    PHASE,
    REFERENCES,
    REPORT,
    ROLE,
)
from lightning_tricks.trial.result import Epoch, Result, State
from lightning_tricks.tricks.recipe import Tricks

STATES: Mapping[State, TrialState] = {
    "complete": TrialState.COMPLETE,
    "paused": TrialState.WAITING,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
"""Optuna's name for each state."""


class EpochData(TypedDict):
    """An epoch, as stored with its trial."""

    number: int
    score: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, or how far it came before it paused, as stored with the trial."""

    recipe: Mapping[str, Any]
    state: State
    epochs: list[EpochData]
    reason: str
    traceback: str
    parameters: int
    seconds: FiniteFloat
    seed: int
    duplicate_of: int | None = None
    diverged: bool = False
    elapsed: FiniteFloat = 0.0
    """Seconds that the study had run for when the trial ended or paused."""

    @classmethod
    def of(cls, tricks: Tricks, seed: int, result: Result) -> Self:
        """Make the outcome of a training's result."""
        return cls(
            recipe=tricks.model_dump(),
            state=result.state,
            epochs=[
                EpochData(number=epoch.number, score=epoch.score, metrics=dict(epoch.metrics))
                for epoch in result.epochs
            ],
            reason=result.reason or result.warning,
            traceback=result.traceback,
            parameters=result.parameters,
            seconds=result.seconds,
            seed=seed,
            diverged=result.diverged,
        )

    @classmethod
    def read(cls, trial: FrozenTrial | optuna.Trial) -> Self | None:
        """Read the outcome of a finished or paused trial; None if there is none."""
        data = trial.user_attrs.get(OUTCOME)
        known = cls.__dataclass_fields__  # a later version may keep more
        return None if data is None else cls(**{k: v for k, v in data.items() if k in known})

    @property
    def history(self) -> list[Epoch]:
        """The reported epochs."""
        return [Epoch(**epoch) for epoch in self.epochs]

    @property
    def score(self) -> float | None:
        """The last score; None if no epoch was finished."""
        return self.epochs[-1]["score"] if self.epochs else None

    def curve(self, monitor: str) -> list[float]:
        """Return the monitored metric, epoch by epoch."""
        return [epoch["metrics"].get(monitor, epoch["score"]) for epoch in self.epochs]

    @property
    def key(self) -> str:
        """Equal for equal recipes."""
        return key(self.recipe)


class Champion(TypedDict, total=False):
    """A study's registered model: the champion's or, without a verdict, the best trial's."""

    alias: Required[str]
    trial: Required[int]
    run_id: Required[str | None]
    version: Required[str]
    ensemble: str | None
    """Version of the champion's ensemble; None if there is none, absent if not made yet."""


def aliases_of(champion: Champion) -> dict[str, str]:
    """Return the registered versions of a study, by alias."""
    ensemble = champion.get("ensemble")
    return {champion["alias"]: champion["version"], **({ENSEMBLE: ensemble} if ensemble else {})}


def key(recipe: Mapping[str, Any]) -> str:
    """Return a string that is equal for equal recipes."""
    return json.dumps(recipe, sort_keys=True)


def best_of(trials: Iterable[FrozenTrial], mode: Mode) -> FrozenTrial | None:
    """Return the best of the trials that used their full budget."""
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    return min(complete, key=lambda trial: scores.rank_of(trial, mode), default=None)


def trial_of(trials: Iterable[FrozenTrial], role: str) -> FrozenTrial | None:
    """Return the trial with a role: the baseline, plain, or the user's unchanged module."""
    return next((t for t in trials if t.user_attrs.get(ROLE) == role), None)


def name_of(trial: FrozenTrial) -> str:
    """Return the name of a trial of a search: `yours`, `baseline`, `plain`, or `trial 7`."""
    return str(trial.user_attrs.get(ROLE, f"trial {trial.number}"))


def trial_named(trials: Iterable[FrozenTrial], name: str) -> FrozenTrial | None:
    """Return the trial of a search that has this name; None if there is none."""
    return next((trial for trial in trials if name_of(trial) == name), None)


def is_repeat(trial: FrozenTrial) -> bool:
    """Return whether a trial was not trained because an earlier one has the same recipe."""
    outcome = trial.user_attrs.get(OUTCOME)
    return outcome is not None and outcome.get("duplicate_of") is not None


def counted(trials: Iterable[FrozenTrial]) -> int:
    """Return the number of finished trials without repeats of earlier recipes."""
    return sum(not is_repeat(trial) for trial in trials)


def compared(trials: Sequence[FrozenTrial], best: FrozenTrial | None) -> list[FrozenTrial]:
    """Return the best trial and the references, if they used their full budget."""
    found = [best, *(trial_of(trials, role) for role in REFERENCES)]
    complete = [
        t for t in found if t is not None and t.state == TrialState.COMPLETE and OUTCOME in t.user_attrs
    ]
    return list({trial.number: trial for trial in complete}.values())


def part_name(study: str, part: str) -> str:
    """Return the name of the study that holds another study's verdict or ablation."""
    return f"{study}.{part}"


def keeps_weights(trial: FrozenTrial | optuna.Trial) -> bool:
    """Return whether a trial's weights are always kept: true for references and verdict trials."""
    held = trial.user_attrs
    return held.get(ROLE) in REFERENCES or held.get(PHASE) == REPORT


def with_weights(trials: Iterable[FrozenTrial]) -> tuple[dict[int, Outcome], list[int]]:
    """Return the complete trials' outcomes, and the numbers of those that always keep their weights."""
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    outcomes = {t.number: outcome for t in complete if (outcome := Outcome.read(t)) is not None}
    return outcomes, [t.number for t in complete if keeps_weights(t)]
