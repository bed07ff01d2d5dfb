"""What a study remembers in Optuna's storage beside parameters and values: the one truth.

The study holds its *identity*: what must be the same for two trials to be comparable. Each finished
trial holds its *outcome*: the record, the curves, the reason. MLflow can be written anew from these.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Required, Self

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from lightning_tricks import scores
from lightning_tricks.errors import InputError, shown
from lightning_tricks.space import Space
from lightning_tricks.task import Task
from lightning_tricks.trial import Epoch, Result
from lightning_tricks.tricks import Tricks
from lightning_tricks.tricks.stopping import Mode

FINGERPRINT = "fingerprint"
IDENTITY, OUTCOME, ROLE = "identity", scores.OUTCOME, "role"
DEATHS, STOP_AT = "deaths", "stop_at"
BASELINE, TESTS = "baseline", "tests"
CHAMPION, MLFLOW_RUN = "champion", "mlflow_run"
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class EpochData(TypedDict):
    """An epoch, as it is kept with its trial."""

    number: int
    score: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, as it is kept with the trial."""

    record: Mapping[str, Any]
    state: Literal["complete", "pruned", "failed"]
    epochs: list[EpochData]
    reason: str
    traceback: str
    parameters: int
    seconds: FiniteFloat
    seed: int
    duplicate_of: int | None = None

    @classmethod
    def of(cls, tricks: Tricks, seed: int, result: Result) -> Self:
        """Take what is to be kept of a result."""
        return cls(
            record=tricks.model_dump(),
            state=result.state,
            epochs=[
                EpochData(number=epoch.number, score=epoch.score, metrics=dict(epoch.metrics))
                for epoch in result.epochs
            ],
            reason=result.reason or result.trouble,
            traceback=result.traceback,
            parameters=result.parameters,
            seconds=result.seconds,
            seed=seed,
        )

    @classmethod
    def read(cls, trial: FrozenTrial) -> Self | None:
        """Read the outcome of a finished trial; None where there is none."""
        data = trial.user_attrs.get(OUTCOME)
        known = cls.__dataclass_fields__  # a later version may keep more
        return None if data is None else cls(**{k: v for k, v in data.items() if k in known})

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


class Champion(TypedDict, total=False):
    """What a study keeps of its champion."""

    trial: Required[int]
    run_id: Required[str | None]
    version: Required[str]
    former: list[int]


_KEPT: dict[str, TypeAdapter[Any]] = {
    IDENTITY: TypeAdapter(dict[str, Any]),
    BASELINE: TypeAdapter(dict[str, Any]),
    TESTS: TypeAdapter(dict[int, dict[str, float]]),
    CHAMPION: TypeAdapter(Champion),
    MLFLOW_RUN: TypeAdapter(str),
}
_OUTCOME: TypeAdapter[Outcome] = TypeAdapter(Outcome)


def inspect(study: optuna.Study) -> None:
    """Check what the storage holds beside parameters and values: it is input, as any file is.

    Raises:
        InputError: if something is not what was written there; names it.
    """
    for name, kind in _KEPT.items():
        if name in study.user_attrs:
            _check_kept(kind, study.user_attrs[name], f"{name} of study {study.study_name!r}")
    for trial in study.get_trials(deepcopy=False):
        if OUTCOME in trial.user_attrs:
            _check_kept(_OUTCOME, trial.user_attrs[OUTCOME], f"outcome of trial {trial.number}")


def _check_kept(kind: TypeAdapter[Any], value: Any, what: str) -> None:
    try:
        kind.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("", *first["loc"])))
        raise InputError(
            f"the storage is damaged: the {what} is not what a study writes ({where.strip('.')}: "
            f"{first['msg']}, got {shown(first['input'], 60)}); put a backup in its place, or choose "
            "another --study-name"
        ) from None


@dataclass(frozen=True)
class Standing:
    """What a study holds beside its trials, and tells each of them apart by."""

    baseline: Tricks
    """The record of the first trial, which the others are compared with."""
    champion: int | None = None
    """The number of the trial that is registered as the best."""
    former: Sequence[int] = ()
    """The numbers of those that were, before others were better."""
    tests: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """The metrics on the test split, by trial number; it is looked at once for each."""

    @classmethod
    def read(cls, study: optuna.Study, task: Task) -> Self:
        """Read where a study stands."""
        held = study.user_attrs
        record, crowned = held.get(BASELINE), held.get(CHAMPION, {})
        return cls(
            baseline=task.reference() if record is None else task.tricks.parse(record),
            champion=crowned.get("trial"),
            former=crowned.get("former", ()),
            tests={int(number): metrics for number, metrics in held.get(TESTS, {}).items()},
        )

    def role(self, trial: FrozenTrial) -> str:
        """Say what a trial is to the study; empty for most."""
        outcome = Outcome.read(trial)
        repeated = None if outcome is None else outcome.duplicate_of
        roles = [
            "champion" if trial.number == self.champion else "",
            trial.user_attrs.get(ROLE, ""),
            "" if repeated is None else f"repeat of {repeated}",
        ]
        return " · ".join(role for role in roles if role)


def remember_test(study: optuna.Study, number: int, metrics: Mapping[str, float]) -> None:
    """Keep a trial's metrics on the test split."""
    study.set_user_attr(TESTS, {**study.user_attrs.get(TESTS, {}), str(number): dict(metrics)})


def remember_champion(study: optuna.Study, number: int, run_id: str | None, version: str) -> None:
    """Keep which trial is registered as the best, and which were."""
    before = study.user_attrs.get(CHAMPION, {})
    former = {*before.get("former", ()), before.get("trial")} - {number, None}
    held = {"trial": number, "run_id": run_id, "version": version, "former": sorted(former)}
    study.set_user_attr(CHAMPION, held)


def key(record: Mapping[str, Any]) -> str:
    """Return a string that is equal for equal records."""
    return json.dumps(record, sort_keys=True)


def claim(
    study: optuna.Study, task: Task, space: Space[Any], seed: int, same_task: bool = False
) -> None:
    """Give a new study its identity, or check that an old one has the same.

    Args:
        study: to be trained.
        task: of the study.
        space: of the study.
        seed: of the study.
        same_task: whether the fingerprint of the task may be another, which is taken over.

    Raises:
        InputError: if the study was made for other trials than these; names what differs.
    """
    mine = check(study, task, space, seed, same_task)
    if study.user_attrs.get(IDENTITY) != mine:
        study.set_user_attr(IDENTITY, mine)


def check(
    study: optuna.Study, task: Task, space: Space[Any], seed: int, same_task: bool = False
) -> dict[str, Any]:
    """Return the identity that a study is to have; see `claim`.

    Raises:
        InputError: if it has another.
    """
    if study.direction.name.lower() != task.direction:
        raise InputError(
            f"study {study.study_name!r} is to {study.direction.name.lower()}, but "
            f"{task.monitor} is to {task.direction}; make it with direction={task.direction!r}, under "
            "another --study-name"
        )
    identity = {
        "task": task.name,
        "monitor": task.monitor,
        "epochs": task.epochs,
        "seed": seed,
        "space": space.describe(),
    }
    mine: dict[str, Any] = json.loads(json.dumps({**identity, FINGERPRINT: task.fingerprint}))
    theirs = study.user_attrs.get(IDENTITY)
    if theirs is None:
        _check_empty(study)
    else:
        _compare(study.study_name, theirs, mine, same_task)
    return mine


def _check_empty(study: optuna.Study) -> None:
    if count := len(study.get_trials(deepcopy=False)):
        raise InputError(
            f"study {study.study_name!r} holds {count} trials of another program; "
            "choose another --study-name"
        )


def _compare(name: str, theirs: dict[str, Any], mine: dict[str, Any], same_task: bool) -> None:
    """Raise an error if two identities differ."""
    theirs, mine = dict(theirs), dict(mine)
    now = mine.pop(FINGERPRINT)
    before = theirs.pop(FINGERPRINT, now)  # studies of old have none
    if difference := _difference(theirs, mine):
        raise InputError(
            f"study {name!r} was made with another value of {difference}; choose another --study-name"
        )
    if (difference := _difference(before, now)) and not same_task:
        raise InputError(
            f"study {name!r} was made with another {difference}; choose another --study-name or, if "
            "scores can be compared all the same, go on with --same-task"
        )


def _difference(theirs: dict[str, Any], mine: dict[str, Any]) -> str:
    """Say in words what first differs between two identities; empty if nothing does."""
    for name in {**theirs, **mine}:
        before, now = theirs.get(name), mine.get(name)
        if before == now:
            continue
        if not (isinstance(before, dict) and isinstance(now, dict)):
            return f"{name} ({_shown(before)} there, {_shown(now)} now)"
        path = next(path for path in {**before, **now} if before.get(path, ...) != now.get(path, ...))
        inside = f"{_shown(before.get(path))} there, {_shown(now.get(path))} now"
        return f"{'the search space' if name == 'space' else name} ({path}: {inside})"
    return ""


def _shown(value: Any) -> str:
    return "nothing" if value is None else value if isinstance(value, str) else repr(value)


def best_of(trials: Iterable[FrozenTrial], mode: Mode) -> FrozenTrial | None:
    """Return the best of the trials that used their whole budget."""
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    return min(complete, key=lambda trial: scores.rank_of(trial, maximize=mode == "max"), default=None)


def trial_of(trials: Iterable[FrozenTrial], role: str) -> FrozenTrial | None:
    """Return the finished trial that is the baseline, or the plain one."""
    return next((t for t in trials if t.user_attrs.get(ROLE) == role), None)


def compared(trials: Sequence[FrozenTrial], best: FrozenTrial | None) -> list[FrozenTrial]:
    """Return those of the best trial, the baseline and plain that used their whole budget."""
    found = [best, trial_of(trials, "baseline"), trial_of(trials, "plain")]
    complete = [
        t for t in found if t is not None and t.state == TrialState.COMPLETE and OUTCOME in t.user_attrs
    ]
    return list({trial.number: trial for trial in complete}.values())


def shelved(trials: Iterable[FrozenTrial]) -> tuple[dict[int, Outcome], list[int]]:
    """Return what decides whose weights are kept: the complete trials' outcomes, the references."""
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    outcomes = {t.number: outcome for t in complete if (outcome := Outcome.read(t)) is not None}
    return outcomes, [t.number for t in complete if ROLE in t.user_attrs]
