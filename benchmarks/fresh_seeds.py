"""Plain, baseline and best recipe of a study, trained again over seeds that the study did not use.

The study finds the best recipe by validation accuracy. The three recipes are then trained with fresh
seeds and scored on the test split, which the study used only for its champion. Intervals are 95%
confidence intervals of the mean (Student's t); the last is of the difference, paired by seed.

    python benchmarks/fresh_seeds.py digits [--trials 40] [--seeds 10] [--study-seed 0]
    python benchmarks/fresh_seeds.py fashion --trials 30 --seeds 5
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from scipy import stats

from lightning_tricks import Task, Tricks, create_study, optimize, train
from lightning_tricks.search.outcomes import Outcome, best_of

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
import digits
import fashion_mnist

TASKS = {"digits": digits.task, "fashion": fashion_mnist.task}
FIRST_SEED = 1_000_000  # far from the seeds that a study derives


def test_accuracy(task: Task, tricks: Tricks, seed: int) -> float:
    """Train a recipe and return its accuracy on the test split, in percent; 0 if it diverged."""
    result = train(task, tricks, seed)
    if result.state != "complete":
        return 0.0
    module = task.module(tricks)
    module.load_state_dict(result.weights)
    module.eval()
    with torch.no_grad():
        shares = [
            (len(targets), float(task.metrics["accuracy"](module(inputs), targets)))
            for inputs, targets in task.data.test_dataloader()
        ]
    return 100 * sum(n * share for n, share in shares) / sum(n for n, _ in shares)


def interval(values: list[float]) -> str:
    """Return the mean with its 95% confidence interval, as text."""
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.2f} ± {half:.2f}"


def main() -> None:
    """Run the study, train the three recipes over seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--study-seed", type=int, default=0)
    given = parser.parse_args()
    task = TASKS[given.task]()
    study = create_study(task.name, storage=None, epochs=task.epochs, seed=given.study_seed)
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
    recipes = {
        "plain": task.tricks.plain(),
        "baseline": task.tricks(),
        f"best (trial {best.number})": task.tricks.parse(outcome.recipe),
    }
    print(f"\nbest: {recipes[f'best (trial {best.number})'].flatten()}")
    pruned = sum(trial.state.name == "PRUNED" for trial in study.trials)
    print(f"\n{given.trials} trials, {pruned} of them pruned; test accuracy over {given.seeds} seeds, %")
    found = {
        name: [test_accuracy(task, tricks, FIRST_SEED + seed) for seed in range(given.seeds)]
        for name, tricks in recipes.items()
    }
    for name, values in found.items():
        print(f"{name:20} {interval(values)}   (from {min(values):.2f} to {max(values):.2f})")
    _, baseline, top = found.values()
    print(f"best − baseline      {interval([b - a for a, b in zip(baseline, top, strict=True)])}")


if __name__ == "__main__":
    main()
