"""The updates that MLflow gets about a trial."""

from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.story import story
from lightning_tricks.search.study_state import StudyState
from lightning_tricks.task.task import Task
from lightning_tricks.tracking import view
from lightning_tricks.tracking.format import (
    DESCRIPTION,
    NAME,
    RECIPE_TYPE,
    metrics_at,
    milliseconds,
    own_metrics,
    ranking,
    run_name,
    shown,
)
from lightning_tricks.tracking.run_update import Status, Update
from lightning_tricks.trial.result import Epoch
from lightning_tricks.tricks.recipe import Tricks
from lightning_tricks.tricks.recipe_types import type_name

STATUS: dict[str, Status] = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}


def began(task: Task, tricks: Tricks, seed: int, start: int) -> Update:
    """Return the update for a trial that begins.

    Args:
        task: the study's task.
        tricks: the trial's recipe.
        seed: the trial's seed.
        start: start time in milliseconds since 1970.
    """
    changed = tricks.differences(task.tricks.plain())
    kinds = [str(getattr(getattr(tricks, stage), "kind", stage)) for stage in changed]
    return Update(
        params={name: shown(value) for name, value in tricks.flatten().items()},
        tags={
            "trial.state": "RUNNING",
            "tricks": " · ".join(kinds) or "plain",
            "seed": str(seed),
            RECIPE_TYPE: type_name(tricks),
        },
        artifacts={"tricks.json": tricks.model_dump()},
        start=start,
        status="RUNNING",
    )


def epoch(done: Epoch, when: int) -> Update:
    """Return the update with an epoch's metrics; `when` is in milliseconds since 1970."""
    return Update(metrics=metrics_at(done.number, done.metrics, when))


def paused() -> Update:
    """Return the update for a trial that pauses."""
    return Update(tags={"trial.state": "WAITING"}, status="SCHEDULED")


def ended(task: Task, trial: FrozenTrial, outcome: Outcome, study_state: StudyState) -> Update:
    """Return the update for a trial that ended."""
    end = _end(trial)
    tags = {
        "trial.state": trial.state.name,
        "reason": outcome.reason,
        "duplicate.of": "" if outcome.duplicate_of is None else str(outcome.duplicate_of),
    }
    numbers = {} if outcome.duplicate_of is not None else {"seconds": outcome.seconds}
    if outcome.parameters:
        numbers["parameters"] = float(outcome.parameters)
    if outcome.parameters and (samples := task.samples()):
        numbers["parameters_per_sample"] = outcome.parameters / samples
    if outcome.score is not None:
        numbers["objective"] = outcome.score
    last = outcome.epochs[-1]["number"] if outcome.epochs else 0
    update = Update(
        tags={name: value for name, value in tags.items() if value},
        metrics=own_metrics(last, numbers, end),
        artifacts={"traceback.txt": outcome.traceback} if outcome.traceback else {},
        end=end,
        status=STATUS[trial.state.name],
    )
    update.merge(placed(task, trial, outcome, study_state, end))
    return update


def placed(
    task: Task, trial: FrozenTrial, outcome: Outcome, study_state: StudyState, when: int
) -> Update:
    """Return the update with a trial's role, ranking and test scores; these change with the champion.

    Args:
        task: the study's task.
        trial: the finished trial.
        outcome: the trial's outcome.
        study_state: the study's state.
        when: time in milliseconds since 1970.
    """
    role = study_state.role(trial)
    metrics = metrics_at(0, study_state.tests.get(trial.number, {}), _end(trial))
    ranks = study_state.ranked and trial.state == TrialState.COMPLETE and outcome.duplicate_of is None
    if ranks and outcome.score is not None:
        first = trial.number == study_state.champion
        metrics.append(ranking(outcome.score, first=first, maximize=task.mode == "max", when=when))
    tags = {
        NAME: run_name(trial.number, role, search=study_state.ranked),
        "role": role,
        DESCRIPTION: story(task, trial, outcome, study_state, _where_to_look(trial, study_state)),
    }
    return Update(tags=tags, metrics=metrics)


def _where_to_look(trial: FrozenTrial, study_state: StudyState) -> str:
    """Return links from the verdict's trial to its model, which is in another run, and the report."""
    if not study_state.is_of_verdict(trial) or study_state.version is None:
        return ""
    page = view.model_page(study_state.study, study_state.version)
    return f"[Its model of the median seed]({page}). The report is with the parent run."


def _end(trial: FrozenTrial) -> int:
    return milliseconds(trial.datetime_complete.timestamp() if trial.datetime_complete else None)


def whole(task: Task, trial: FrozenTrial, study_state: StudyState) -> Update:
    """Return the full update of a finished or paused trial, made from Optuna's data."""
    outcome = Outcome.read(trial)
    start = milliseconds((trial.datetime_start or datetime.now()).timestamp())
    if outcome is None:
        return Update(tags={"trial.state": trial.state.name}, start=start, status="FAILED")
    update = began(task, task.tricks.parse(outcome.recipe), outcome.seed, start)
    step = 1000 * outcome.seconds / max(len(outcome.epochs), 1)
    for count, done in enumerate(outcome.history, 1):
        update.merge(epoch(done, start + int(step * count)))
    is_over = trial.state.is_finished()
    update.merge(ended(task, trial, outcome, study_state) if is_over else paused())
    return update
