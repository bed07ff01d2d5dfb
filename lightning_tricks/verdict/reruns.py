"""Trainings of given recipes with given seeds, as trials of a study beside the search."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.search import keys
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.sampling.given import enqueue
from lightning_tricks.seeds import derive
from lightning_tricks.study.coordinator import Coordinator
from lightning_tricks.study.session import Session
from lightning_tricks.tricks.recipe import Tricks


class TimeUp(Exception):
    """Time was up before all of a verdict, or of an ablation, was trained."""


class Reruns:
    """Train recipes over seeds; what was trained before is not trained again.

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
        self, phase: str, recipes: Mapping[str, Tricks], seed_indices: Sequence[int]
    ) -> list[dict[str, FrozenTrial]]:
        """Train each recipe with some seeds, the same for all; return the finished trials of each seed.

        Args:
            phase: what for, from which the seeds follow.
            recipes: by the names of their entries.
            seed_indices: numbers of the seeds of that phase, from 0 on.

        Raises:
            KeyboardInterrupt: if the user asked for it.
            TimeUp: if time is, before all are trained.
        """
        own = self.session
        held = {seed_index: self._of(phase, seed_index, own.study.trials) for seed_index in seed_indices}
        # Those of one recipe side by side, for they can be trained as one.
        for name, seed_index in itertools.product(recipes, seed_indices):
            if name not in held[seed_index]:
                self._enqueue(phase, name, recipes[name], seed_index)
        if waiting := self._waiting():
            self._coordinator.run(len(own.history) + waiting, keep_workers=True)
            if own.signals.late and self._waiting():
                raise TimeUp
        found = [self._of(phase, seed_index, own.history) for seed_index in seed_indices]
        return [{name: of_draw[name] for name in recipes} for of_draw in found]

    def _waiting(self) -> int:
        """Return how many trials wait to be trained."""
        return len(self.session.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _enqueue(self, phase: str, name: str, recipe: Tricks, seed_index: int) -> None:
        own = self.session
        attrs = {
            keys.SEED: _seed(own.seed, seed_index, phase),
            keys.ENTRY: name,
            keys.PHASE: phase,
            keys.SEED_INDEX: seed_index,
            keys.ROLE: f"{name} · {phase} {seed_index + 1}",
        }
        enqueue(own.study, own.space, recipe, attrs)

    @staticmethod
    def _of(phase: str, seed_index: int, trials: Iterable[FrozenTrial]) -> dict[str, FrozenTrial]:
        return {
            t.user_attrs[keys.ENTRY]: t
            for t in trials
            if t.user_attrs.get(keys.PHASE) == phase and t.user_attrs.get(keys.SEED_INDEX) == seed_index
        }


def _seed(seed: int, seed_index: int, phase: str) -> int:
    """Return the seed of a rerun, from which its split follows.

    It is odd for what compares the champion, so that validation samples are those that chose nothing;
    see `InMemoryData.split_anew`.
    """
    return derive(seed, seed_index, phase) // 2 * 2 + (phase == keys.REPORT)


def recipe_of(session: Session, trial: FrozenTrial) -> Tricks:
    """Return the recipe of a finished trial."""
    outcome = Outcome.read(trial)
    assert outcome is not None  # it was trained
    recipe: Tricks = session.task.tricks.parse(outcome.recipe)
    return recipe
