"""A study's identity: what must be the same for two trials to be comparable."""

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
    name_score(study, task.monitor)


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
    if task.repeats > 1:  # studies of old do not say
        identity["repeats"] = task.repeats
    mine: dict[str, Any] = json.loads(json.dumps({**identity, FINGERPRINT: task.fingerprint}))
    theirs = study.user_attrs.get(IDENTITY)
    if theirs is None:
        _check_others(study, space)
    else:
        _compare(study.study_name, theirs, mine, same_task)
    return mine


def _check_others(study: optuna.Study, space: Space[Any]) -> None:
    """Check that what a study holds before its first trial is here to stay: trials of the same space.

    Those that wait are trained; those that are finished tell the sampler what they scored.
    """
    trials = study.get_trials(deepcopy=False)
    others = [t for t in trials if t.state != TrialState.WAITING and not _fits(t, space)]
    if others:
        raise InputError(
            f"study {study.study_name!r} holds {len(others)} trials of another program, such as trial "
            f"{others[0].number}; choose another --study-name"
        )


def _fits(trial: FrozenTrial, space: Space[Any]) -> bool:
    """Tell whether the parameters of a finished trial are those of a recipe of a space."""
    if not trial.state.is_finished():
        return False
    drawn: Any = optuna.trial.FixedTrial(trial.params)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # about values out of range
            space.suggest(drawn)
    except Exception:  # a name that is missing, or a value that is none of the space
        return False
    return set(drawn.params) == set(trial.params)


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
