"""Trainings of given records with given seeds, as trials of a study beside the search."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import optuna
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.search import outcomes
from lightning_tricks.search.given import enqueue
from lightning_tricks.search.optuna_internals import storage_of
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.studies import unannounced
from lightning_tricks.seeds import derive
from lightning_tricks.study.coordinator import Coordinator
from lightning_tricks.study.folder import StudyFolder
from lightning_tricks.tricks.record import Tricks


class TimeUp(Exception):
    """Time was up before all of a verdict, or of an ablation, was trained."""


@contextmanager
def beside(search: Coordinator, part: str) -> Iterator[Coordinator]:
    """Enter the coordinator of a part's study, which stands beside that of the search.

    Args:
        search: whose coordinator is still entered.
        part: one of `PARTS`.

    Raises:
        InputError: if its folder cannot be made, or MLflow cannot be reached.
    """
    with _coordinator(search, part) as own:
        runs = search.study.user_attrs.get(outcomes.PART_RUNS, {})
        search.study.set_user_attr(outcomes.PART_RUNS, {**runs, part: own.tracker.writer.run_id})
        yield own
    search.recorded &= own.recorded


def _coordinator(search: Coordinator, part: str) -> Coordinator:
    study = _study(search, part)
    folder = StudyFolder(search.folder.path / part, keep=1, mode=search.task.mode)
    folder.create()
    return Coordinator(
        study,
        search.task.rerun(),
        search.space,
        search.seed,
        search.placement,
        search.tracker.for_part(part),
        search.progress,
        folder,
        search.signals,
        search.repair,
    )


def _study(search: Coordinator, part: str) -> optuna.Study:
    """Return the part's study in Optuna, which knows whose it is."""
    with unannounced():
        study = optuna.create_study(
            study_name=outcomes.part_name(search.study.study_name, part),
            storage=storage_of(search.study),
            direction=search.study.direction,
            sampler=RandomSampler(seed=search.seed),  # asked for nothing: all is given
            pruner=NopPruner(),
            load_if_exists=True,
        )
    held = search.study.user_attrs
    passed_on = {name: held[name] for name in (outcomes.BASELINE, outcomes.FUSE) if name in held}
    for name, value in {outcomes.PART_OF: search.study.study_name, **passed_on}.items():
        if study.user_attrs.get(name) != value:
            study.set_user_attr(name, value)
    return study


class Reruns:
    """Train records over seeds; what was trained before is not trained again.

    Args:
        coordinator: of a part's study, which is entered.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator

    def run(
        self, phase: str, records: Mapping[str, Tricks], draws: Sequence[int]
    ) -> list[dict[str, FrozenTrial]]:
        """Train each record with some seeds, the same for all; return the finished trials of each seed.

        Args:
            phase: what for, from which the seeds follow.
            records: by the names of their entries.
            draws: numbers of the seeds of that phase, from 0 on.

        Raises:
            KeyboardInterrupt: if the user asked for it.
            TimeUp: if time is, before all are trained.
        """
        own = self.coordinator
        held = {draw: self._of(phase, draw, own.study.trials) for draw in draws}
        # Those of one record side by side, for they can be trained as one.
        for name, draw in itertools.product(records, draws):
            if name not in held[draw]:
                self._enqueue(phase, name, records[name], draw)
        waiting = own.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if waiting:
            own.run(len(own.history) + len(waiting), keep_workers=True)
            if own.signals.late and own.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                raise TimeUp
        found = [self._of(phase, draw, own.history) for draw in draws]
        return [{name: of_draw[name] for name in records} for of_draw in found]

    def _enqueue(self, phase: str, name: str, record: Tricks, draw: int) -> None:
        own = self.coordinator
        attrs = {
            outcomes.SEED: _seed(own.seed, draw, phase),
            outcomes.ENTRY: name,
            outcomes.PHASE: phase,
            outcomes.DRAW: draw,
            outcomes.ROLE: f"{name} · {phase} {draw + 1}",
        }
        enqueue(own.study, own.space, record, attrs)

    @staticmethod
    def _of(phase: str, draw: int, trials: Iterable[FrozenTrial]) -> dict[str, FrozenTrial]:
        return {
            t.user_attrs[outcomes.ENTRY]: t
            for t in trials
            if t.user_attrs.get(outcomes.PHASE) == phase and t.user_attrs.get(outcomes.DRAW) == draw
        }


def _seed(seed: int, draw: int, phase: str) -> int:
    """Return the seed of a rerun, from which its split follows.

    It is odd for what compares the champion, so that validation samples are those that chose nothing;
    see `InMemoryData.split_anew`.
    """
    return derive(seed, draw, phase) // 2 * 2 + (phase == outcomes.REPORT)


def record_of(coordinator: Coordinator, trial: FrozenTrial) -> Tricks:
    """Return the record of a finished trial."""
    outcome = Outcome.read(trial)
    assert outcome is not None  # it was trained
    record: Tricks = coordinator.task.tricks.parse(outcome.record)
    return record
