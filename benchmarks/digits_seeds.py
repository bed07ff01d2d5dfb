"""Plain, baseline and best on scikit-learn's digits, each trained anew over fresh seeds.

The study of `studies/digits.py` finds the best record by validation accuracy; the three records are
then trained with seeds that the study did not use, and scored on the test split, which it did not see
but for its champion. Intervals are 95 % confidence intervals of the mean (Student's t).

    python benchmarks/digits_seeds.py [--trials 40] [--seeds 10] [--study-seed 0]
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from scipy import stats

from lightning_tricks import Task, Tricks, create_study, optimize, train
from lightning_tricks.ledger import Outcome, best_of

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
import digits

FIRST_SEED = 1_000_000  # far from those that a study derives


def test_accuracy(task: Task, tricks: Tricks, seed: int) -> float:
    """Train a record and return its accuracy on the test split; 0 if it diverged."""
    result = train(task, tricks, seed)
    if result.state != "complete":
        return 0.0
    module = task.module(tricks)
    module.load_state_dict(result.weights)
    module.eval()
    inputs, targets = task.data.splits["test"]
    with torch.no_grad():
        return float(task.metrics["accuracy"](module(inputs), targets))


def interval(values: list[float]) -> str:
    """Write the mean with its 95 % confidence interval, in per cent."""
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{100 * statistics.mean(values):.2f} ± {100 * half:.2f}"


def main() -> None:
    """Run the study, train the three records over seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--study-seed", type=int, default=0)
    given = parser.parse_args()
    task = digits.task()
    study = create_study("digits", storage=None, epochs=task.epochs, seed=given.study_seed)
    with tempfile.TemporaryDirectory() as folder:
        optimize(
            study,
            task,
            n_trials=given.trials,
            seed=given.study_seed,
            tracking_uri=f"sqlite:///{folder}/mlflow.db",
            checkpoints=folder,
        )
    best = best_of(study.trials, task.mode)
    outcome = Outcome.read(best)
    records = {
        "plain": task.tricks.plain(),
        "baseline": task.tricks(),
        f"best (trial {best.number})": task.tricks.parse(outcome.record),
    }
    print(f"\ntest accuracy over {given.seeds} fresh seeds, %")
    for name, tricks in records.items():
        values = [test_accuracy(task, tricks, FIRST_SEED + seed) for seed in range(given.seeds)]
        print(f"{name:20} {interval(values)}   (from {min(values):.4f} to {max(values):.4f})")
    print(f"\nbest: {records[f'best (trial {best.number})'].flatten()}")


if __name__ == "__main__":
    main()
