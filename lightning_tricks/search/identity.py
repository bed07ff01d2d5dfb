"""A study's identity: the settings that must be equal for its trials to be comparable."""

import json
import warnings
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.errors import InputError
from lightning_tricks.search.dashboard import name_score
from lightning_tricks.search.keys import IDENTITY
from lightning_tricks.space.space import Space
from lightning_tricks.task.task import Task

FINGERPRINT = "fingerprint"


def claim(
    study: optuna.Study, task: Task, space: Space[Any], seed: int, same_task: bool = False
) -> None:
    """Give a new study its identity, or check that an existing one has the same.

    Args:
        study: the study to run.
        task: its task.
        space: its search space.
        seed: its seed.
        same_task: whether to accept, and store, a different fingerprint of the task.

    Raises:
        InputError: if the study has another identity; names the difference.
    """
    mine = check(study, task, space, seed, same_task)
    if study.user_attrs.get(IDENTITY) != mine:
        study.set_user_attr(IDENTITY, mine)
    name_score(study, task.monitor)


def check(
    study: optuna.Study, task: Task, space: Space[Any], seed: int, same_task: bool = False
) -> dict[str, Any]:
    """Return the identity that a study should have; see `claim`.

    Raises:
        InputError: if it has another.
    """
    if study.direction.name.lower() != task.direction:
        raise InputError(
            f"study {study.study_name!r} was made to {study.direction.name.lower()}, but the task needs "
            f"to {task.direction} {task.monitor}; make another study, with a new name: "
            "create_study(task, name=...)"
        )
    identity = {
        "task": task.name,
        "monitor": task.monitor,
        "epochs": task.epochs,
        "seed": seed,
        "space": space.describe(),
    }
    if task.repeats > 1:  # absent from older studies
        identity["repeats"] = task.repeats
    mine: dict[str, Any] = json.loads(json.dumps({**identity, FINGERPRINT: task.fingerprint}))
    theirs = study.user_attrs.get(IDENTITY)
    if theirs is None:
        _check_others(study, space)
    else:
        _compare(study.study_name, theirs, mine, same_task)
    return mine


def _check_others(study: optuna.Study, space: Space[Any]) -> None:
    """Check that trials added to a study before its first run fit the space.

    Waiting trials will be trained. Finished trials give the sampler their scores.
    """
    trials = study.get_trials(deepcopy=False)
    others = [t for t in trials if t.state != TrialState.WAITING and not _fits(t, space)]
    if others:
        raise InputError(
            f"study {study.study_name!r} holds {len(others)} trials of another program, such as trial "
            f"{others[0].number}; choose another --study-name"
        )


def _fits(trial: FrozenTrial, space: Space[Any]) -> bool:
    """Return whether a finished trial's parameters are a recipe of the space."""
    if not trial.state.is_finished():
        return False
    drawn: Any = optuna.trial.FixedTrial(trial.params)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # about values out of range
            space.suggest(drawn)
    except Exception:  # a missing name, or a value outside the space
        return False
    return set(drawn.params) == set(trial.params)


def _compare(name: str, theirs: dict[str, Any], mine: dict[str, Any], same_task: bool) -> None:
    """Raise an error if two identities differ."""
    theirs, mine = dict(theirs), dict(mine)
    now = mine.pop(FINGERPRINT)
    before = theirs.pop(FINGERPRINT, now)  # absent from older studies
    settings = _difference(theirs, mine)
    difference = settings or ("" if same_task else _difference(before, now))
    hint = "" if settings else ", or add --same-task if the scores are still comparable"
    if difference:
        raise InputError(
            f"study {name!r} was made with other settings: {difference}; choose another --study-name "
            f"(in Python: create_study(task, name=...)){hint}"
        )


def _difference(theirs: dict[str, Any], mine: dict[str, Any]) -> str:
    """Return the first difference between two identities, in words; empty if there is none."""
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
