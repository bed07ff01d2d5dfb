"""Is another baseline better than `Tricks()` on most tasks?

A few changes of the baseline are trained on the design tasks of `tasks.py` (or the held-out ones, to
confirm what the others chose) and scored on unseen samples, over seeds that nothing else uses.

    python benchmarks/baselines.py              # continues where it stopped
    python benchmarks/baselines.py --held-out

The reduction of the error is (error of the baseline − error of the change) / error of the baseline,
where the error is the loss, or 1 − accuracy.
"""

import argparse
import warnings

import numpy as np
import torch
from tasks import DESIGN, HELD_OUT, TASKS, Known
from truth import truth

from lightning_tricks import Space, Tricks
from lightning_tricks.selection.intervals import mean_interval
from lightning_tricks.task.checks import check

SEEDS = [910_001, 910_003, 910_005, 910_007]
CHANGES = {
    "initialization he_normal": {"initialization": {"kind": "he_normal"}},
    "initialization orthogonal": {"initialization": {"kind": "orthogonal"}},
    "adam, lr 0.004": {"optimizer": {"kind": "adam", "lr": 0.004}},
    "adam, lr 0.008": {"optimizer": {"kind": "adam", "lr": 0.008}},
    "adagrad": {"optimizer": {"kind": "adagrad"}},
}


def error(known: Known, recipe: Tricks) -> float:
    """Return a recipe's mean error on unseen samples."""
    score = float(truth(known, recipe, SEEDS).mean())
    return 1 - score if known.task.mode == "max" else score


def reductions(name: str, changes: list[str]) -> dict[str, float]:
    """Return by how much each change reduces a task's error, in percent."""
    known = TASKS[name]()
    space, _ = check(known.task, Space(known.task.tricks))
    baseline = space.nearest(known.task.reference())
    usual = error(known, baseline)
    changed = {
        words: space.nearest(type(baseline).parse({**baseline.model_dump(), **CHANGES[words]}))
        for words in changes
    }
    return {words: 100 * (1 - error(known, recipe) / usual) for words, recipe in changed.items()}


def main() -> None:
    """Print the reductions by task, and their means."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=list(CHANGES), metavar="change")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    found = {name: reductions(name, given.changes) for name in (HELD_OUT if given.held_out else DESIGN)}
    print(f"{'reduction of the error, %':26}" + "".join(f"{name[:15]:>16}" for name in found))
    for words in given.changes:
        values = np.array([own[words] for own in found.values()])
        cells = "".join(f"{value:+16.1f}" for value in values)
        print(
            f"{words:26}{cells}   mean {mean_interval(list(values)).signed}, "
            f"better on {(values > 0).sum()} of {len(values)}"
        )


if __name__ == "__main__":
    main()
