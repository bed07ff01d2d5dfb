"""`optimize`: check the input, then run the search and what follows it."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import optuna

from lightning_tricks.budget import MOST, Budget
from lightning_tricks.checked import checked
from lightning_tricks.errors import InputError, check_name, quoted, whole_number
from lightning_tricks.process import unchanged
from lightning_tricks.report.summary import Summary
from lightning_tricks.run.archives import check_archive, open_archive
from lightning_tricks.search import identity, keys, outcomes
from lightning_tricks.search.inspection import inspect
from lightning_tricks.search.observer import Observer
from lightning_tricks.search.optuna_internals import storage_of
from lightning_tricks.search.storage.lock import study_lock
from lightning_tricks.search.storage.waiting import retrying
from lightning_tricks.search.studies import StudyMaker, finished, paused
from lightning_tricks.selection.ablation import Ablation
from lightning_tricks.selection.result import Verdict
from lightning_tricks.selection.terms import Terms
from lightning_tricks.space.space import Space
from lightning_tricks.study.coordinator import Coordinator
from lightning_tricks.study.folder import StudyFolder
from lightning_tricks.study.observers import Callback, CallingBack
from lightning_tricks.study.progress import Progress
from lightning_tricks.study.search_plan import SearchPlan, check_budget
from lightning_tricks.study.session import Session, Setup, beside, session
from lightning_tricks.study.signals import AtTimeout, Signals
from lightning_tricks.study.spending import Spending, seconds_of
from lightning_tricks.task.checks import check
from lightning_tricks.task.task import Task
from lightning_tricks.training.group_size import Fuse, GroupSize
from lightning_tricks.verdict import ablation, judging
from lightning_tricks.verdict.conclusion import conclude
from lightning_tricks.verdict.reporting import remember_command
from lightning_tricks.verdict.reruns import TimeUp
from lightning_tricks.workers.placement import Make, Placement

CHECKED = (
    *("study", "task", "learn_from", "ray_address", "tracking_uri", "checkpoints", "observers"),
    *("prefer_simple", "ablate", "same_task", "progress", "repair"),
)
"""Arguments of `optimize` whose types are checked; the rules for the others say more."""


class _Study(optuna.Study):
    """A study that accepts `stop()` outside of Optuna's own loop, as samplers call it."""

    exhausted = False

    def stop(self) -> None:
        self.exhausted = True


@unchanged()
@checked(*CHECKED)
def optimize(
    study: optuna.Study | StudyMaker,
    task: Task,
    *,
    n_trials: int | None = None,
    budget: str | None = None,
    space: Space[Any] | None = None,
    timeout: float | None = None,
    at_timeout: AtTimeout = "finish",
    seed: int = 0,
    learn_from: Sequence[optuna.Study] = (),
    workers: int | Literal["auto", "inline"] | Make = "auto",
    devices_per_trial: float = 1,
    ray_address: str | None = None,
    stall_minutes: float = 30,
    fuse: Fuse = "auto",
    tracking_uri: str | Path | None = "sqlite:///mlflow.db",
    checkpoints: str | Path = "checkpoints",
    keep: int = 3,
    finalists: int = 0,
    seeds: int = 5,
    verdict_budget: int = 0,
    margin: float | None = None,
    prefer_simple: bool = False,
    ablate: bool = False,
    same_task: bool = False,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    observers: Sequence[Observer] = (),
    repair: bool = False,
) -> Summary:
    """Search the tricks of a task until the study holds `n_trials` trials, or its budget is spent.

    The first two trials are the baseline `Tricks()` and `Tricks.plain()`, or the nearest recipes in
    the space. The study's sampler proposes the others. A study that already holds trials continues;
    interrupted trials continue from their last checkpoints.

    Args:
        study: a study with any sampler, pruner and storage, as `create_study` makes it.
        task: what to train.
        n_trials: number of finished trials in the study at the end, earlier runs included. A trial that
            repeats a recipe copies its outcome and does not count. None for as many as the budget
            affords.
        budget: what search, verdict and ablation may take together, earlier runs included: a time such
            as `2h`, or a number such as `3000 epochs`, which gives the same study each time (with one
            worker and one `fuse`). The search ends early if further trials can hardly matter; what it
            leaves goes to the verdict's seeds.
        space: the search space; by default that of the task's recipe type.
        timeout: seconds after which no new trial starts, in the search or after it.
        at_timeout: whether to `finish` running trials then, or to `requeue` them.
        seed: seed of the study; each trial's seed follows from it and the trial's number.
        learn_from: earlier studies, of this or another task. What they found is expected here, too,
            until trials say otherwise; their best recipes come first. Used only when the study begins.
        workers: `inline` for this process, or a number of Ray actors. `auto` is one per GPU; without a
            GPU it is this process, or several once there is enough work. Or a function that makes your
            own `lightning_tricks.workers.base.Workers` for a task.
        devices_per_trial: devices for each trial. With a fraction, trials share a GPU; with two or
            more, several GPUs train one trial.
        ray_address: address of a running Ray cluster, `HOST:PORT` or `auto`; None for this machine.
        stall_minutes: minutes of silence after which a worker is killed; its trial continues elsewhere.
        fuse: how many trainings a worker runs as one program: a number, `off` for one, or `auto` for
            the fastest number, which is measured.
        tracking_uri: anything MLflow takes, or the path of a SQLite file. None for no MLflow: the report
            and the models go to the study's folder in `checkpoints`.
        checkpoints: folder for the checkpoints of running trials and the weights of the best ones; on a
            cluster, a folder that all nodes see.
        keep: number of best trials whose weights are kept.
        finalists: number of best recipes that train again over fresh seeds, until one is left. It
            replaces the baseline as champion only if a gain is confirmed. With 0 there is no verdict and
            no champion; the model with the best score is registered as `best`.
        seeds: fewest fresh seeds for the comparison, 3 or more.
        verdict_budget: most trainings in the verdict; 0 for one per trial of the search and repeat. All
            are used unless there is a margin.
        margin: smallest difference that matters, in the unit of the score. The verdict adds seeds until
            its interval is narrower. None for half the standard deviation of the baseline's seeds.
        prefer_simple: whether a recipe with fewer tricks becomes the champion if it is not worse by more
            than the margin.
        ablate: whether to measure what each trick is worth: the champion without it, and plain with it
            alone. Needs a verdict.
        same_task: whether to continue although data, functions or settings of the task look changed.
        progress: whether to print progress on the standard error.
        callbacks: functions to call after each trial of the search with the study and the trial, as in
            `optuna.Study.optimize`. `study.stop()` ends the search.
        observers: objects to notify during the search; see `Observer`.
        repair: whether to repair MLflow first: rewrite what differs from Optuna, and remove runs and
            model versions of an earlier write.

    Returns:
        What the study found. Its `missing` says what MLflow lacks if a server was away at the end.

    Raises:
        InputError: if an argument is not valid; nothing is lost.
        Unfinished: if Ray died and did not start again.
        TakenOver: if another program took over the study, because this one did not respond.
        KeyboardInterrupt: after Ctrl-C; running trials are finished, or put back in the queue.
    """
    begin = time.monotonic()
    space = Space(task.tricks) if space is None else space
    placement = Placement(workers, devices_per_trial, ray_address, stall_minutes, GroupSize.of(fuse))
    _check(study.study_name, task, space, callbacks)
    limit = None if budget is None else Budget.read(budget)
    terms = Terms(finalists, seeds, verdict_budget, margin, prefer_simple, str(limit or ""))
    n_trials, seed = _most_trials(n_trials, limit), whole_number("seed", seed, 0)
    signals = Signals(timeout, at_timeout)
    space, notes = check(task, space, placement.processes)
    check_budget(limit, task, terms)
    folder = _folder(checkpoints, study.study_name, keep, task)
    placement.check()
    check_archive(tracking_uri, study.study_name)
    study = study.make() if isinstance(study, StudyMaker) else study  # nothing was made before
    with Progress(None if limit else n_trials, quiet=not progress) as display:
        storage = retrying(storage_of(study), display.warn, lambda: signals.leaving)
        study = _Study(study.study_name, storage, study.sampler, study.pruner)
        _check_study(study, task, space, seed, same_task, ablate and not finalists)
        folder.create()
        with study_lock(study, folder.path, display.print, signals.leave) as lock:
            storage.guard = lock.verify
            _announce(study, n_trials, notes, display)
            identity.claim(study, task, space, seed, same_task)
            remember_command(study, repair)
            archive = open_archive(tracking_uri, study, task, space, folder, display, lock, repair)
            heard = [CallingBack(study, callbacks), *observers]
            given = Setup(
                study=study,
                task=task,
                space=space,
                seed=seed,
                placement=placement,
                folder=folder,
                progress=display,
                signals=signals,
                spending=Spending(limit, seconds_of(study), begin=begin),
            )
            with session(given, archive, heard, learn_from) as search:
                summary = _run(search, n_trials, terms, ablate, repair)
            if missing := search.archive.missing:
                display.warn(missing)
            return replace(summary, missing=missing)


def ablate(study: optuna.Study, task: Task, *, seeds: int = 5, **options: Any) -> Ablation:
    """Return what each trick of a study's champion is worth; the same as `optimize(..., ablate=True)`.

    Args:
        study: a study with a verdict.
        task: its task.
        seeds: number of seeds for the comparison.
        options: other arguments of `optimize`, such as `workers`.

    Raises:
        InputError: if the study has no verdict, or as `optimize` does.
    """
    held = max(outcomes.counted(finished(study)), 1)
    optimize(study, task, n_trials=held, seeds=seeds, ablate=True, **options)
    if (kept := study.user_attrs.get(keys.kept(keys.ABLATION))) is None:
        raise InputError("the budget does not afford the ablation: give more, or none")
    return Ablation.read(kept)


def _run(search: Session, n_trials: int, terms: Terms, ablate: bool, repair: bool) -> Summary:
    """Run the search and what follows it, and return what was found."""
    with Coordinator(search) as coordinator:
        coordinator.run(n_trials, SearchPlan(search, n_trials, terms, ablate=ablate))
    summary = _conclude(search, terms, ablate, repair)
    search.observers.concluded(search.study)
    return summary


def _conclude(search: Session, terms: Terms, ablate: bool, repair: bool) -> Summary:
    """Run the verdict and the ablation, and return what was found."""
    opened = search.study.user_attrs.get(keys.PART_RUNS if repair else keys.UNWRITTEN, ())
    for part in list(opened):
        with beside(search, part):
            pass  # its runs in MLflow are set right when it is taken up
    judged: Verdict | None = None
    try:
        judged = (
            judging.judge(search, terms, ablates=ablate) if terms.finalists else judging.again(search)
        )
        if ablate and judged is not None:
            conclude(search, judged)  # which is not to wait for what may take hours
            ablation.ablate(search, judged.trial, terms.seeds)
    except TimeUp:
        part = "verdict" if judged is None else "ablation"
        search.progress.print(f"time is up in the {part}: the same command continues it")
        judged = judged or judging.again(search)
    return conclude(search, judged)


def _announce(study: optuna.Study, n_trials: int, notes: list[str], display: Progress) -> None:
    """Print what the study already holds, and the notes about the task."""
    trials, waiting = finished(study), paused(study)
    held = outcomes.counted(trials)
    display.start(trials, waiting)
    for note in notes:
        display.print(note)
    if held >= n_trials:
        display.print(f"nothing to train: the study already holds {held} finished trials")
    elif trials:
        and_paused = f", {len(waiting)} are paused" if waiting else ""
        of = "" if n_trials == MOST else f" of {n_trials}"
        display.print(f"continuing: {held}{of} trials are already finished{and_paused}")


def _most_trials(n_trials: int | None, budget: Budget | None) -> int:
    """Return the maximum number of trials."""
    if n_trials is None and budget is None:
        raise InputError("a study needs an end: give n_trials or budget")
    return MOST if n_trials is None else whole_number("n_trials", n_trials, 1)


def _folder(checkpoints: str | Path, name: str, keep: int, task: Task) -> StudyFolder:
    """Return the folder of a study, once it is clear that it can be made."""
    if not str(checkpoints) or "://" in str(checkpoints):
        raise InputError(f"checkpoints must be the path of a folder (got {quoted(str(checkpoints))})")
    folder = StudyFolder(
        Path(checkpoints).expanduser().absolute() / name, whole_number("keep", keep, 1), task.mode
    )
    folder.check()
    return folder


def _check_study(
    study: optuna.Study, task: Task, space: Space[Any], seed: int, same_task: bool, needs_verdict: bool
) -> None:
    if len(study.directions) > 1:
        raise InputError(f"the study must have one objective (got {len(study.directions)})")
    inspect(study)
    identity.check(study, task, space, seed, same_task)
    if needs_verdict and keys.kept(keys.VERDICT) not in study.user_attrs:
        raise InputError("an ablation is of a verdict's champion: leave finalists above 0")


def _check(name: str, task: Task, space: Space[Any], callbacks: Any) -> None:
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise InputError(f"callbacks must be a list of functions (got {callbacks!r:.80})")
    if not isinstance(space, Space) or not issubclass(space.model, task.tricks):
        raise InputError(f"the space must be one of {task.tricks.__name__} (got {space!r:.80})")
    check_name(name)
