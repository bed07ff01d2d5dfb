"""Checks what a storage keeps of a study: like any file, it may be damaged."""

from typing import Any, Literal

import optuna
from pydantic import FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from lightning_tricks.errors import damaged, shown
from lightning_tricks.scores import PREFIX
from lightning_tricks.search.keys import (
    ABLATION,
    BASELINE,
    CHAMPION,
    COMMANDS,
    FUSE,
    IDENTITY,
    MLFLOW_RUN,
    OUTCOME,
    PART_OF,
    PART_RUNS,
    PLANNED,
    PRIOR,
    TESTS,
    UNWRITTEN,
    VERDICT,
    kept,
)
from lightning_tricks.search.outcomes import Champion, Outcome
from lightning_tricks.training.group_size import GroupSize


class Planned(TypedDict):
    """How many trials a budget affords, once it is known."""

    budget: str
    trials: int


_KEPT: dict[str, TypeAdapter[Any]] = {
    IDENTITY: TypeAdapter(dict[str, Any]),
    BASELINE: TypeAdapter(dict[str, Any]),
    TESTS: TypeAdapter(dict[int, dict[str, float]]),
    CHAMPION: TypeAdapter(Champion),
    MLFLOW_RUN: TypeAdapter(str),
    PRIOR: TypeAdapter(dict[str, dict[str, FiniteFloat]]),
    PART_OF: TypeAdapter(str),
    PART_RUNS: TypeAdapter(dict[str, str]),
    UNWRITTEN: TypeAdapter(list[Literal["verdict", "ablation"]]),
    COMMANDS: TypeAdapter(list[str]),
    FUSE: TypeAdapter(GroupSize),
    PLANNED: TypeAdapter(Planned),
    kept(VERDICT): TypeAdapter(dict[str, Any]),
    kept(ABLATION): TypeAdapter(dict[str, Any]),
}
_OUTCOME: TypeAdapter[Outcome] = TypeAdapter(Outcome)


def inspect(study: optuna.Study) -> None:
    """Check the attributes of a study and of its trials.

    Raises:
        InputError: if an attribute is damaged; names it.
    """
    for name, kind in _KEPT.items():
        if name in study.user_attrs:
            _check_kept(
                kind,
                study.user_attrs[name],
                f"{name.removeprefix(PREFIX)} of study {study.study_name!r}",
            )
    for trial in study.get_trials(deepcopy=False):
        if OUTCOME in trial.user_attrs:
            _check_kept(_OUTCOME, trial.user_attrs[OUTCOME], f"outcome of trial {trial.number}")


def _check_kept(kind: TypeAdapter[Any], value: Any, what: str) -> None:
    try:
        kind.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("", *first["loc"])))
        why = f"{where.strip('.')}: {first['msg']}, got {shown(first['input'], 60)}"
        raise damaged(what, why) from None
