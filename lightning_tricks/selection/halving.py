"""Which of a few recipes is best: every round trains those that are left, and keeps the better half."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Halving:
    """Sequential halving over seeds (Karnin, Koren and Somekh, 2013).

    The budget is shared out evenly over the rounds, so the recipes that are hard to tell apart get the
    most seeds. It only chooses: whoever is left is compared with the incumbent over seeds of its own.

    Args:
        names: of the recipes.
        budget: number of trainings; each round takes at least one seed, whatever the budget.
        maximize: whether more is better.

    Example:
        halving = Halving(["trial 3", "trial 7", "trial 12"], budget=12)
        while seeds := halving.seeds():
            for _ in range(seeds):
                halving.add({name: train(name) for name in halving.running})
            halving.drop()
        print(halving.best)
    """

    names: Sequence[str]
    budget: int
    maximize: bool = True
    scores: dict[str, list[float]] = field(init=False)
    """Scores of each recipe, seed by seed. A recipe that was dropped has no further ones."""
    running: list[str] = field(init=False)
    """Recipes that were not dropped."""

    def __post_init__(self) -> None:
        self.scores = {name: [] for name in self.names}
        self.running = list(self.names)

    @property
    def best(self) -> str | None:
        """The recipe with the best mean of those that are left; None if all failed."""
        return min(self.running, key=self.rank, default=None)

    @property
    def spent(self) -> int:
        """Number of trainings so far."""
        return sum(map(len, self.scores.values()))

    def seeds(self) -> int:
        """Return how many seeds the next round has; 0 once one recipe is left."""
        return self._seeds_of(len(self.running))

    @property
    def most(self) -> int:
        """Number of trainings in all, if no recipe fails."""
        total, running = 0, len(self.names)
        while seeds := self._seeds_of(running):
            total += seeds * running
            running = _half(running)
        return total

    def _seeds_of(self, running: int) -> int:
        if running < 2:
            return 0
        rounds = math.ceil(math.log2(len(self.names)))
        return max(self.budget // rounds // running, 1)

    def add(self, scores: Mapping[str, float]) -> list[str]:
        """Take the scores of one more seed; drop and return the recipes that have none."""
        failed = [name for name in self.running if name not in scores]
        self.running = [name for name in self.running if name in scores]
        for name in self.running:
            self.scores[name].append(scores[name])
        return failed

    def drop(self) -> list[str]:
        """End a round: drop the worse half, and return it."""
        ranked = sorted(self.running, key=self.rank)
        kept = ranked[: _half(len(ranked))]
        self.running = [name for name in self.running if name in kept]
        return [name for name in ranked if name not in kept]

    def rank(self, name: str) -> tuple[float, int]:
        """Return what sorts the best mean first; of equals the one that was named first."""
        scores = self.scores[name]
        mean = sum(scores) / len(scores) if scores else 0.0
        return (-mean if self.maximize else mean, list(self.names).index(name))


def _half(count: int) -> int:
    """Return how many recipes are the better half."""
    return -(-count // 2)
