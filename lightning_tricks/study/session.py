"""A session: the objects of one run of a study."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from lightning_tricks.search import keys, outcomes
from lightning_tricks.search.archive import Archive
from lightning_tricks.search.observer import Observer, Observers
from lightning_tricks.search.optuna_internals import requeue, storage_of
from lightning_tricks.search.pruners import rung_of
from lightning_tricks.search.sampling.given import enqueue
from lightning_tricks.search.sampling.learning import learn
from lightning_tricks.search.studies import finished, trials_of_part, unannounced
from lightning_tricks.space.space import Space
from lightning_tricks.study.folder import StudyFolder
from lightning_tricks.study.history import History
from lightning_tricks.study.observers import Noting, Telling, TellingOfReruns
from lightning_tricks.study.progress import Progress
from lightning_tricks.study.signals import Signals
from lightning_tricks.study.spending import Spending, spent_on
from lightning_tricks.task.task import Task
from lightning_tricks.tricks.recipe import Tricks
from lightning_tricks.workers.placement import Placement


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The objects that a run of a study is given."""

    study: optuna.Study
    task: Task
    space: Space[Any]
    seed: int
    """The study's seed, from which the trials' seeds follow."""
    placement: Placement
    """Where its workers run."""
    folder: StudyFolder
    progress: Progress
    signals: Signals
    """What can end it early."""
    spending: Spending
    """What is left of the budget."""


@dataclass(frozen=True, kw_only=True)
class Session(Setup):
    """All objects that one run of a study, or of a part of one, uses from start to end."""

    history: History
    archive: Archive
    observers: Observer
    """All observers, as one."""
    part: str = ""
    """One of `PARTS`; empty for the search."""

    @property
    def searches(self) -> bool:
        """Whether a sampler draws the trials; a verdict's and an ablation's trials are given."""
        return not self.part


@contextmanager
def session(
    given: Setup,
    opening: AbstractContextManager[Archive],
    users: Sequence[Observer] = (),
    sources: Sequence[optuna.Study] = (),
) -> Iterator[Session]:
    """Open the session of a search: requeue its running trials, then open the archive.

    Args:
        given: what the run is given; its folder must exist.
        opening: opens the archive after the study is ready.
        users: the user's observers.
        sources: earlier studies to learn from, if this one begins.

    Raises:
        InputError: if the archive cannot be opened.
    """
    study, task, progress = given.study, given.task, given.progress
    history = _taken_up(study, task, given.folder)
    if keys.BASELINE not in study.user_attrs:
        for line in _begin(study, task, given.space, sources):
            progress.print(line)
    elif sources and keys.PRIOR not in study.user_attrs:
        progress.print("this study began without earlier studies to learn from, so they have no effect")
    with opening as archive:
        own = [history, given.folder, archive, Telling(progress, history), Noting(study, task)]
        everyone = Observers(own, users)
        yield Session(**vars(given), history=history, archive=archive, observers=everyone)


@contextmanager
def beside(search: Session, part: str) -> Iterator[Session]:
    """Open the session of a part, whose study is separate from the search's.

    Args:
        search: the open session of the search.
        part: one of `PARTS`.

    Raises:
        InputError: if its folder cannot be made, or the archive cannot be opened.
    """
    study, task = _study_of(search, part), search.task.rerun()
    folder = StudyFolder(search.folder.path / part, keep=1, mode=task.mode)
    folder.create()
    history = _taken_up(study, task, folder)
    spending = search.spending.after(spent_on(search.history, search.task.repeats))
    for earlier in keys.PARTS[: keys.PARTS.index(part)]:
        spending = spending.after(spent_on(trials_of_part(search.study, earlier), repeats=1))
    with search.archive.beside(part, study, task) as archive:
        everyone = Observers([history, folder, archive, TellingOfReruns(search.progress, history)])
        yield replace(
            search,
            study=study,
            task=task,
            folder=folder,
            history=history,
            archive=archive,
            observers=everyone,
            spending=spending,
            part=part,
        )


def _study_of(search: Session, part: str) -> optuna.Study:
    """Return the part's study in Optuna, linked to the search's study."""
    with unannounced():
        study = optuna.create_study(
            study_name=outcomes.part_name(search.study.study_name, part),
            storage=storage_of(search.study),
            direction=search.study.direction,
            sampler=RandomSampler(seed=search.seed),  # never used: all recipes are given
            pruner=NopPruner(),
            load_if_exists=True,
        )
    held = search.study.user_attrs
    passed_on = {name: held[name] for name in (keys.BASELINE, keys.FUSE) if name in held}
    for name, value in {keys.PART_OF: search.study.study_name, **passed_on}.items():
        if study.user_attrs.get(name) != value:
            study.set_user_attr(name, value)
    return study


def _taken_up(study: optuna.Study, task: Task, folder: StudyFolder) -> History:
    """Requeue the running trials, and return the history of the finished ones."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        requeue(study, trial)
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    history = History(task.mode)
    for trial in finished(study):
        history.add(trial)
    folder.remove_checkpoints(except_of=[trial.number for trial in waiting])
    folder.rank(*outcomes.with_weights(history))
    return history


def _begin(
    study: optuna.Study, task: Task, space: Space[Any], sources: Sequence[optuna.Study]
) -> list[str]:
    """Enqueue the user's unchanged module, the baseline and plain, as near as the space allows.

    Then enqueue the best recipes of earlier studies; return what is to be said about these.
    """
    baseline = space.nearest(task.reference())
    yours, plain = task.yours(), space.nearest(task.tricks.plain())
    first = {"yours": yours, "baseline": baseline, "plain": plain}
    seen: list[Tricks] = []
    for role, tricks in first.items():
        if tricks is not None and tricks not in seen:
            seen.append(tricks)
            enqueue(study, space, tricks, {keys.ROLE: role})
    rung = rung_of(study, task.epochs)
    lines = learn(study, space, sources, {} if rung is None else {keys.PAUSE_AFTER: rung})
    study.set_user_attr(keys.BASELINE, baseline.model_dump())  # last: a program may die before
    return lines
