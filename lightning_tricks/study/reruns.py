"""Trainings of given records with given seeds, as trials of a study beside the search."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.search import outcomes
from lightning_tricks.search.given import enqueue
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.seeds import derive
from lightning_tricks.study.coordinator import Coordinator
from lightning_tricks.study.session import Session
from lightning_tricks.tricks.record import Tricks


class TimeUp(Exception):
    """Time was up before all of a verdict, or of an ablation, was trained."""


class Reruns:
    """Train records over seeds; what was trained before is not trained again.

    Args:
        session: of a part of a study.
    """

    def __init__(self, session: Session) -> None:
        self.session, self._coordinator = session, Coordinator(session)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._coordinator.close()

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
        own = self.session
        held = {draw: self._of(phase, draw, own.study.trials) for draw in draws}
        # Those of one record side by side, for they can be trained as one.
        for name, draw in itertools.product(records, draws):
            if name not in held[draw]:
                self._enqueue(phase, name, records[name], draw)
        if waiting := self._waiting():
            self._coordinator.run(len(own.history) + waiting, keep_workers=True)
            if own.signals.late and self._waiting():
                raise TimeUp
        found = [self._of(phase, draw, own.history) for draw in draws]
        return [{name: of_draw[name] for name in records} for of_draw in found]

    def _waiting(self) -> int:
        """Return how many trials wait to be trained."""
        return len(self.session.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _enqueue(self, phase: str, name: str, record: Tricks, draw: int) -> None:
        own = self.session
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


def record_of(session: Session, trial: FrozenTrial) -> Tricks:
    """Return the record of a finished trial."""
    outcome = Outcome.read(trial)
    assert outcome is not None  # it was trained
    record: Tricks = session.task.tricks.parse(outcome.record)
    return record
