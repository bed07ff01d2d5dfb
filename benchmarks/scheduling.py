"""When should a trial pause, and how many go on? Replayed on the recorded curves of `curves.py`.

Random recipes of a task are drawn from the recorded ones, with one of their two seeds. A rule decides
which are trained to the end. The five best of those by validation are chosen, as for a verdict; the
regret is the distance of the best of the five to the best of all recorded recipes, by the mean score on
unseen samples over both seeds. It is printed in units of the standard deviation of the better half of
the recipes, so that tasks can be compared.

    python benchmarks/scheduling.py [--trainings 12] [--draws 300]

Every rule gets as many recipes as make it spend the epochs of 12 full trainings: what 40 trials spend
that pause after a sixth of their epochs, if one in six goes on.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from curves import held_curves
from numpy.typing import NDArray

from lightning_tricks.selection.intervals import mean_interval

EPOCHS, FINALISTS = 12, 5
Scores = NDArray[np.floating[Any]]
"""Validation scores of some recipes, higher is better, of shape (recipes, epochs)."""


def every(scores: Scores) -> tuple[list[int], int]:
    """Train all to the end; return which were trained to the end, and the epochs spent."""
    return list(range(len(scores))), len(scores) * EPOCHS


def median(scores: Scores, warm: int = 4) -> tuple[list[int], int]:
    """Stop whoever is worse than the median of the ended ones at that epoch, as Optuna's pruner does."""
    ended: list[int] = []
    epochs = 0
    for number, curve in enumerate(scores):
        for epoch in range(EPOCHS):
            epochs += 1
            compared = number >= 8 and warm <= epoch < EPOCHS - 1 and len(ended) >= 5
            if compared and curve[: epoch + 1].max() < np.median(scores[ended, epoch]):
                break
        else:
            ended.append(number)
    return ended, epochs


def pause(scores: Scores, after: int, one_in: int) -> tuple[list[int], int]:
    """Pause all after some epochs; whenever `one_in` more have paused, the best that waits goes on."""
    waiting: list[int] = []
    ended: list[int] = []
    for number in range(len(scores)):
        waiting.append(number)
        if (number + 1) % one_in == 0:
            best = max(waiting, key=lambda one: scores[one, after - 1])
            waiting.remove(best)
            ended.append(best)
    return ended, len(scores) * after + len(ended) * (EPOCHS - after)


RULES: dict[str, Callable[[Scores], tuple[list[int], int]]] = {
    "every trial to the end": every,
    "the median pruner": median,
    **{
        f"pause after {after} of 12, one in {one_in} goes on": partial(pause, after=after, one_in=one_in)
        for after in (1, 2, 3, 4)
        for one_in in (3, 4, 6, 8)
    },
}


class Recorded:
    """The recorded recipes of a task."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.sign = 1 if rows[0]["mode"] == "max" else -1
        self.curves = np.array([[self._curve(curve) for curve in row["curves"]] for row in rows])
        self.truth = np.array([self._truth(row["unseen"]) for row in rows])
        better = np.sort(self.truth)[len(rows) // 2 :]
        self.unit = better.std()

    def _curve(self, curve: list[float]) -> list[float]:
        """Return a curve of full length: one that diverged goes on as the worst."""
        return [self.sign * score for score in curve] + [-1e9] * (EPOCHS - len(curve))

    def _truth(self, unseen: list[float | None]) -> float:
        return self.sign * float(np.mean([-self.sign * 1e9 if one is None else one for one in unseen]))

    def regret(self, rule: Callable[[Scores], tuple[list[int], int]], budget: int, seed: int) -> float:
        """Return the regret of a rule that spends its budget of epochs on random recipes."""
        luck = np.random.default_rng(seed)
        drawn = luck.permutation(len(self.truth))
        scores = self.curves[drawn, luck.integers(2)]
        count = len(drawn)
        while count > 1 and rule(scores[:count])[1] > budget:
            count -= max((rule(scores[:count])[1] - budget) // EPOCHS, 1)
        ended, _ = rule(scores[:count])
        chosen = sorted(ended, key=lambda one: -scores[one, -1])[:FINALISTS]
        best = max((self.truth[drawn[one]] for one in chosen), default=-math.inf)
        return float((self.truth.max() - best) / self.unit)


def main() -> None:
    """Print the regret of each rule, for each task and on the average."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trainings", type=int, default=12)
    parser.add_argument("--draws", type=int, default=300)
    given = parser.parse_args()
    rows = defaultdict(list)
    for row in held_curves():
        rows[row["task"]].append(row)
    tasks = {name: Recorded(some) for name, some in rows.items() if len(some) >= 80}
    print(f"{'':38}" + "".join(f"{name[:16]:>17}" for name in [*tasks, "mean ± over tasks"]))
    for name, rule in RULES.items():
        means = [
            np.mean([task.regret(rule, given.trainings * EPOCHS, seed) for seed in range(given.draws)])
            for task in tasks.values()
        ]
        print(f"{name:38}" + "".join(f"{mean:17.2f}" for mean in means), f" {mean_interval(means)}")


if __name__ == "__main__":
    main()
