"""Sequential halving: each round trains the remaining recipes, and keeps the better half."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Halving:
    """Sequential halving over seeds (Karnin, Koren and Somekh, 2013).

    Each round gets the same share of the budget, so recipes that are hard to tell apart get the most
    seeds. It only chooses a recipe, which is then compared with the incumbent over other seeds.

    Args:
        names: names of the recipes.
        budget: number of trainings; each round takes at least one seed, whatever the budget.
        maximize: whether higher scores are better.

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
    """Scores of each recipe, seed by seed, until it was dropped."""
    running: list[str] = field(init=False)
    """Recipes that were not dropped."""

    def __post_init__(self) -> None:
        self.scores = {name: [] for name in self.names}
        self.running = list(self.names)

    @property
    def best(self) -> str | None:
        """The remaining recipe with the best mean; None if all failed."""
        return min(self.running, key=self.rank, default=None)

    @property
    def spent(self) -> int:
        """Number of trainings so far."""
        return sum(map(len, self.scores.values()))

    def seeds(self) -> int:
        """Return the number of seeds of the next round; 0 once only one recipe is left."""
        return self._seeds_of(len(self.running))

    @property
    def most(self) -> int:
        """Total number of trainings if no recipe fails."""
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
        """Add the scores of one more seed; drop and return the recipes without a score."""
        failed = [name for name in self.running if name not in scores]
        self.running = [name for name in self.running if name in scores]
        for name in self.running:
            self.scores[name].append(scores[name])
        return failed

    def drop(self) -> list[str]:
        """End a round: drop and return the worse half."""
        ranked = sorted(self.running, key=self.rank)
        kept = ranked[: _half(len(ranked))]
        self.running = [name for name in self.running if name in kept]
        return [name for name in ranked if name not in kept]

    def rank(self, name: str) -> tuple[float, int]:
        """Return a sort key: the best mean first, ties by the order of `names`."""
        scores = self.scores[name]
        mean = sum(scores) / len(scores) if scores else 0.0
        return (-mean if self.maximize else mean, list(self.names).index(name))


def _half(count: int) -> int:
    """Return the size of the better half, rounded up."""
    return -(-count // 2)
