"""Check that Optuna and MLflow agree on trials, states, values and parameters."""

import time
from collections.abc import Iterator

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.errors import InputError
from lightning_tricks.process import unchanged
from lightning_tricks.scores import is_own
from lightning_tricks.search import keys, outcomes
from lightning_tricks.search.archive import REPORT
from lightning_tricks.search.promotion import is_paused
from lightning_tricks.search.storage import lock
from lightning_tricks.search.study_state import StudyState, known_runs
from lightning_tricks.task.task import Task
from lightning_tricks.tracking import trial_updates
from lightning_tricks.tracking.holdings import Holdings, Recorded, holdings
from lightning_tricks.tracking.run_update import Update
from lightning_tricks.tracking.writer import FLUSH_SECONDS


@unchanged()
def differences(study: optuna.Study, task: Task, tracking_uri: str) -> list[str]:
    """Return the differences between MLflow and Optuna, one line each; empty if they agree.

    Running trials are ignored. MLflow lags a little while a program works on the study, so a
    difference then counts only if it is still there a moment later.

    Args:
        study: the study; it is not changed.
        task: its task.
        tracking_uri: the MLflow that the study was written to.

    Raises:
        InputError: if MLflow cannot be reached, or the study was never trained.
    """
    found = list(_differences(study, task, tracking_uri))
    if found and lock.held(study):
        time.sleep(3 * FLUSH_SECONDS)
        again = set(_differences(study, task, tracking_uri))
        found = [line for line in found if line in again]
    return found


def left_behind(name: str, tracking_uri: str) -> list[str]:
    """Return what MLflow holds of a study that Optuna does not know, one line each.

    Raises:
        InputError: if MLflow cannot be reached.
    """
    return list(_strays(holdings(tracking_uri, name, None)))


def removals(name: str, tracking_uri: str, study: optuna.Study | None = None) -> list[str]:
    """Return what a repair would remove from MLflow because Optuna does not know it.

    Args:
        name: the study's name.
        tracking_uri: the MLflow that the study was written to.
        study: the study in Optuna; None if there is none of this name.

    Raises:
        InputError: if MLflow cannot be reached.
    """
    held = holdings(tracking_uri, name, None) if study is None else _held(study, tracking_uri)
    known = set() if study is None else {t.number for t in study.get_trials(deepcopy=False)}
    unknown = [run.number for run in held.trials if run.number not in known]
    return [
        *(f"run {run}" for run in held.strays),
        *(f"the run of trial {number}" for number in unknown),
        *(f"version {version}" for version in held.stray_versions),
    ]


def wrong(study: optuna.Study, task: Task, tracking_uri: str) -> set[int]:
    """Return the numbers of the trials that differ between MLflow and Optuna.

    Raises:
        InputError: if MLflow cannot be reached.
    """
    return {number for number, _ in _trials(study, task, _held(study, tracking_uri))}


def _differences(study: optuna.Study, task: Task, tracking_uri: str) -> Iterator[str]:
    held = _held(study, tracking_uri)
    if keys.MLFLOW_RUN not in study.user_attrs and not held.strays:
        raise InputError(f"study {study.study_name!r} was never trained: train it before you compare")
    if not held.whole:
        yield "the study's own run is missing in MLflow, or was deleted"
    yield from (f"trial {number}: {what}" for number, what in _trials(study, task, held))
    yield from _strays(held)
    yield from _models(study, held)
    if keys.kept(keys.VERDICT) in study.user_attrs and REPORT not in held.files():
        yield f"the study's run has no {REPORT}"


def _models(study: optuna.Study, held: Holdings) -> Iterator[str]:
    """Yield what is wrong with the registered models."""
    champion = study.user_attrs.get(keys.CHAMPION)
    if not champion:
        return
    for alias, mine in outcomes.aliases_of(champion).items():
        found = held.aliases.get(alias)
        if mine != found:
            theirs = "none" if found is None else f"version {found}"
            yield f"the {alias} is version {mine} in Optuna, {theirs} in MLflow"
        elif mine in held.broken():
            yield f"files are missing for version {mine} of the registered model, the {alias}"


def _held(study: optuna.Study, tracking_uri: str) -> Holdings:
    """Return what MLflow holds of a study or a part; a part is under the name of its search there."""
    name = study.user_attrs.get(keys.PART_OF, study.study_name)
    run_id = study.user_attrs.get(keys.MLFLOW_RUN)
    return holdings(tracking_uri, name, run_id, known_runs(study))


def _strays(held: Holdings) -> Iterator[str]:
    if held.strays:
        yield (
            f"{len(held.strays)} runs in MLflow are of an earlier write, unknown to Optuna: "
            f"{', '.join(held.strays[:3])}{', …' if held.strays[3:] else ''}"
        )
    if held.stray_versions:
        yield (
            "versions of the registered model whose run is not one of the study's: "
            f"{', '.join(held.stray_versions)}"
        )
    if held.stray_models:
        yield f"{len(held.stray_models)} exported networks belong to no version of the registered model"


def _trials(study: optuna.Study, task: Task, held: Holdings) -> Iterator[tuple[int, str]]:
    """Yield the differences between MLflow and Optuna, with the trial's number."""
    runs: dict[int, list[Recorded]] = {}
    for run in held.trials:
        runs.setdefault(run.number, []).append(run)
    study_state = StudyState.read(study, task)
    for trial in study.get_trials(deepcopy=False):
        found = runs.pop(trial.number, [])
        number, state = trial.number, trial.state
        kept = (state.is_finished() and is_own(trial)) or is_paused(trial)
        if len(found) > 1:
            yield number, f"MLflow has {len(found)} runs of it"
        elif kept and found:
            yield from ((number, line) for line in _compare(task, trial, study_state, found[0]))
        elif kept:
            yield number, f"{state.name} in Optuna, but MLflow has no run of it"
        elif found and found[0].status != _status(trial):
            yield number, f"{state.name} in Optuna, {found[0].status} in MLflow"
    for number in sorted(runs):
        yield number, "MLflow has a run of it, but Optuna does not know it"


def _status(trial: FrozenTrial) -> str:
    """Return the status of the run of a trial that did not end; empty if it must not have one."""
    if trial.state == TrialState.WAITING:
        return "SCHEDULED" if is_own(trial) else ""  # it has paused before, or has not begun
    return "RUNNING"


def _compare(task: Task, trial: FrozenTrial, study_state: StudyState, run: Recorded) -> Iterator[str]:
    expected: Update = trial_updates.whole(task, trial, study_state)
    metrics = {metric.key: metric.value for metric in expected.metrics}
    pairs = [
        *(("param", name, value, run.params.get(name)) for name, value in expected.params.items()),
        *(("tag", name, value, run.tags.get(name)) for name, value in expected.tags.items()),
        *(("metric", name, value, run.metrics.get(name)) for name, value in metrics.items()),
        ("run", "status", expected.status, run.status),
    ]
    for kind, name, mine, theirs in pairs:
        if mine != theirs:
            shown = "nothing" if theirs is None else theirs
            yield f"{kind} {name} is {mine} in Optuna, {shown} in MLflow"
    for name in sorted(set(expected.artifacts) - run.files()):
        yield f"artifact {name} is missing in MLflow"
    for name in sorted(set(run.params) - set(expected.params)):
        yield f"param {name} is {run.params[name]} in MLflow, not in Optuna"
