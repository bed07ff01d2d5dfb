"""What a study remembers in Optuna's storage beside parameters and values: the one truth.

The study holds its *identity*: what must be the same for two trials to be comparable. Each finished
trial holds its *outcome*: the record, the curves, the reason. MLflow can be written anew from these.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.errors import InputError
from lightning_tricks.space import Space
from lightning_tricks.task import Task
from lightning_tricks.trial import Epoch, Result
from lightning_tricks.tricks import Tricks
from lightning_tricks.tricks.stopping import Mode

IDENTITY, OUTCOME, ROLE = "identity", "outcome", "role"
DEATHS, STOP_AT = "deaths", "stop_at"
CHAMPION, MLFLOW_RUN = "champion", "mlflow_run"
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, as it is kept with the trial."""

    record: Mapping[str, Any]
    state: str
    epochs: list[dict[str, Any]]
    """Of each epoch its number, score and metrics."""
    reason: str
    traceback: str
    parameters: int
    seconds: float
    seed: int
    duplicate_of: int | None = None

    @classmethod
    def of(cls, tricks: Tricks, seed: int, result: Result) -> Self:
        """Take what is to be kept of a result."""
        return cls(
            record=tricks.model_dump(),
            state=result.state,
            epochs=[asdict(epoch) for epoch in result.epochs],
            reason=result.reason,
            traceback=result.traceback,
            parameters=result.parameters,
            seconds=result.seconds,
            seed=seed,
        )

    @classmethod
    def read(cls, trial: FrozenTrial) -> Self | None:
        """Read the outcome of a finished trial; None where there is none."""
        data = trial.user_attrs.get(OUTCOME)
        return None if data is None else cls(**data)

    @property
    def history(self) -> list[Epoch]:
        """The epochs as they were reported."""
        return [Epoch(**epoch) for epoch in self.epochs]

    @property
    def score(self) -> float | None:
        """The last score; None if no epoch was finished."""
        return self.epochs[-1]["score"] if self.epochs else None

    @property
    def key(self) -> str:
        """Equal for equal records."""
        return key(self.record)


def key(record: Mapping[str, Any]) -> str:
    """Return a string that is equal for equal records."""
    return json.dumps(record, sort_keys=True)


def claim(study: optuna.Study, task: Task, space: Space[Any], seed: int) -> None:
    """Give a new study its identity, or check that an old one has the same.

    Raises:
        InputError: if the study was made for other trials than these; names what differs.
    """
    if study.direction.name.lower() != task.direction:
        raise InputError(
            f"study {study.study_name!r} is to {study.direction.name.lower()}, but "
            f"{task.monitor} is to {task.direction}; choose another --study-name"
        )
    mine: dict[str, Any] = json.loads(
        json.dumps(
            {
                "task": task.name,
                "monitor": task.monitor,
                "epochs": task.epochs,
                "seed": seed,
                "space": space.describe(),
            }
        )
    )
    theirs = study.user_attrs.get(IDENTITY)
    if theirs is None:
        if count := len(study.get_trials(deepcopy=False)):
            raise InputError(
                f"study {study.study_name!r} holds {count} trials of another program; "
                "choose another --study-name"
            )
        study.set_user_attr(IDENTITY, mine)
    elif difference := _difference(theirs, mine):
        raise InputError(
            f"study {study.study_name!r} was made with another value of {difference}; "
            "choose another --study-name"
        )


def _difference(theirs: dict[str, Any], mine: dict[str, Any]) -> str:
    """Say in words what first differs between two identities; empty if nothing does."""
    for name, now in mine.items():
        before = theirs.get(name)
        if name == "space" and isinstance(before, dict):
            paths = [p for p in {**before, **now} if before.get(p, ...) != now.get(p, ...)]
            if paths:
                path = paths[0]
                return (
                    f"the search space ({path}: {before.get(path, 'nothing')} there, "
                    f"{now.get(path, 'nothing')} now)"
                )
        elif before != now:
            return f"{name} ({before!r} there, {now!r} now)"
    return ""


def best_of(trials: Iterable[FrozenTrial], mode: Mode) -> FrozenTrial | None:
    """Return the best of the trials that used their whole budget; the earliest of equals."""
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    sign = 1 if mode == "max" else -1
    return max(complete, key=lambda t: (sign * (t.value or 0.0), -t.number), default=None)


def trial_of(trials: Iterable[FrozenTrial], role: str) -> FrozenTrial | None:
    """Return the finished trial that is the baseline, or the plain one."""
    return next((t for t in trials if t.user_attrs.get(ROLE) == role), None)
