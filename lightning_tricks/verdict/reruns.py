"""Trainings of given recipes with given seeds, as trials of a separate study."""

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
    """Time was up before a verdict or an ablation was complete."""


SHOWN = {keys.REPORT: "comparison"}
"""Phases that people know under another name; the seeds are derived from the stored one."""


class Reruns:
    """Trains recipes over seeds; skips what is already trained.

    Args:
        session: the session of a verdict or an ablation.
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
        """Train all recipes with the same seeds; return the finished trials of each seed, by name.

        Args:
            phase: the purpose of the trainings; their seeds depend on it.
            recipes: the recipes by name.
            seed_indices: the seed indices, from 0 on.

        Raises:
            KeyboardInterrupt: if the user interrupts.
            TimeUp: if time is up before all are trained.
        """
        own = self.session
        trials = own.study.get_trials(deepcopy=False)
        held = {seed_index: self._of(phase, seed_index, trials) for seed_index in seed_indices}
        missing = any(name not in of_seed for of_seed in held.values() for name in recipes)
        if missing and own.signals.late:
            raise TimeUp
        # A recipe's trials come in a row, because they can be trained as a group.
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
        """Return the number of trials that wait to be trained."""
        return len(self.session.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _enqueue(self, phase: str, name: str, recipe: Tricks, seed_index: int) -> None:
        own = self.session
        attrs = {
            keys.SEED: _seed(own.seed, seed_index, phase),
            keys.ENTRY: name,
            keys.PHASE: phase,
            keys.SEED_INDEX: seed_index,
            keys.ROLE: f"{name} · {SHOWN.get(phase, phase)}, seed {seed_index + 1}",
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
    """Return the seed of a rerun, which also determines its split.

    It is odd for the comparison, so that the validation samples took no part in choosing; see
    `InMemoryData.split_anew`.
    """
    return derive(seed, seed_index, phase) // 2 * 2 + (phase == keys.REPORT)


def recipe_of(session: Session, trial: FrozenTrial) -> Tricks:
    """Return the recipe of a finished trial."""
    outcome = Outcome.read(trial)
    assert outcome is not None  # it was trained
    recipe: Tricks = session.task.tricks.parse(outcome.recipe)
    return recipe
