"""What MLflow is told about a trial, in the words of the study."""

import shlex
import sys
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial

from lightning_tricks.ledger import ROLE, Outcome
from lightning_tricks.space import Space
from lightning_tricks.task import Task
from lightning_tricks.tracking import Status, Update, metrics_at, milliseconds, shown
from lightning_tricks.trial import Epoch
from lightning_tricks.tricks import Tricks

STATUS: dict[str, Status] = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}


def began(task: Task, tricks: Tricks, seed: int, start: int) -> Update:
    """Tell that a trial begins.

    Args:
        task: of the study.
        tricks: the record of the trial.
        seed: of the trial.
        start: milliseconds since the epoch.
    """
    changed = tricks.differences(task.tricks.plain())
    kinds = [str(getattr(getattr(tricks, stage), "kind", stage)) for stage in changed]
    return Update(
        params={name: shown(value) for name, value in tricks.flatten().items()},
        tags={
            "trial.state": "RUNNING",
            "tricks": " · ".join(kinds) or "plain",
            "seed": str(seed),
        },
        artifacts={"tricks.json": tricks.model_dump()},
        start=start,
        status="RUNNING",
    )


def epoch(done: Epoch, when: int) -> Update:
    """Tell the metrics of an epoch; `when` is in milliseconds since the epoch of the clock."""
    return Update(metrics=metrics_at(done.number, done.metrics, when))


def ended(task: Task, trial: FrozenTrial, outcome: Outcome) -> Update:
    """Tell how a trial ended."""
    end = milliseconds(trial.datetime_complete.timestamp() if trial.datetime_complete else None)
    tags = {
        "trial.state": trial.state.name,
        "reason": outcome.reason,
        "duplicate.of": "" if outcome.duplicate_of is None else str(outcome.duplicate_of),
        "role": trial.user_attrs.get(ROLE, ""),
    }
    numbers = {"seconds": outcome.seconds}
    if outcome.parameters:
        numbers["parameters"] = float(outcome.parameters)
    if outcome.parameters and (samples := task.samples()):
        numbers["parameters_per_sample"] = outcome.parameters / samples
    if outcome.score is not None:
        numbers["objective"] = outcome.score
    last = outcome.epochs[-1]["number"] if outcome.epochs else 0
    return Update(
        tags={name: value for name, value in tags.items() if value},
        metrics=metrics_at(last, numbers, end),
        artifacts={"traceback.txt": outcome.traceback} if outcome.traceback else {},
        end=end,
        status=STATUS[trial.state.name],
    )


def whole(task: Task, trial: FrozenTrial) -> Update:
    """Tell all about a finished trial, from what Optuna holds."""
    outcome = Outcome.read(trial)
    start = milliseconds((trial.datetime_start or datetime.now()).timestamp())
    if outcome is None:
        return Update(tags={"trial.state": trial.state.name}, start=start, status="FAILED")
    update = began(task, task.tricks.parse(outcome.record), outcome.seed, start)
    step = 1000 * outcome.seconds / max(len(outcome.epochs), 1)
    for count, done in enumerate(outcome.history, 1):
        update.merge(epoch(done, start + int(step * count)))
    update.merge(ended(task, trial, outcome))
    return update


def columns(task: Task, space: Space[Any]) -> list[str]:
    """Return the columns of the table of trials, in MLflow's names: what the trials may differ in."""
    searched = {path.partition(".")[0] for path in space.searched()}
    stages = [name for name in task.tricks.model_fields if name != "optimizer" and name in searched]
    return [
        "metrics.`objective`",
        "metrics.`parameters_per_sample`",
        *(f"params.`{name}`" for name in ("optimizer", "optimizer.lr", *stages)),
        "tags.`trial.state`",
        "tags.`tricks`",
    ]


def command() -> str:
    """Return the command that started this program."""
    return shlex.join(["python", *sys.argv])
