"""Our search against the search that people write by hand, and against Optuna's on the same space.

On the held-out tasks of `tasks.py` (or the given ones) each arm spends the epochs of 40 full trainings:

- tutorial: Optuna's TPE over what tutorials search: inputs in [0, 1], three optimizers, rate, decay,
  dropout, norm, initialization, clipping, exponential decay
- tpe, gp: Optuna's samplers over our space
- asha: Optuna's TPE over our space, with Optuna's successive halving
- one epoch: random recipes of our space for one epoch each; the best tenth trains to the end
- ours, and "ours, median": our search, and the same with Optuna's median pruner instead of pauses
- "tpe, paused": our search with Optuna's TPE as its sampler, which tells what our sampler is worth
- baseline: what the search begins with, for no epochs
- "ours, verdict": `--budget` with these epochs, as scripts run it: a search, then a verdict over fresh
  seeds, whose champion is the baseline unless a gain is confirmed

All train with our `train`, which is faster than a loop by hand. An arm's choice is the recipe with the
best score; that of our searches the best by evidence, as finalists are chosen. The truth of a choice is
its mean score on unseen samples, over four seeds that nothing else uses. Regret is by how much its error
(the loss, or 1 − accuracy) exceeds that of the best choice of any arm and seed. Seconds are of one core.

    python benchmarks/by_hand.py segments power --arms ours tpe --seeds 5   # continues where it stopped
    python benchmarks/by_hand.py --summary
"""

import argparse
import json
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import torch
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial
from tasks import HELD_OUT, TASKS, Known
from truth import held_rows, truth

from lightning_tricks import Space, Tricks, create_study, optimize, train
from lightning_tricks.report.summary import Summary
from lightning_tricks.search.outcomes import Outcome, is_repeat
from lightning_tricks.search.promotion import GOING_ON
from lightning_tricks.search.pruners import PAUSE_AFTER
from lightning_tricks.search.studies import finished
from lightning_tricks.selection.intervals import difference, mean_interval
from lightning_tricks.task.checks import check
from lightning_tricks.verdict.finalists import by_evidence

RESULTS = Path(__file__).with_suffix(".jsonl")
TRAININGS = 40
"""The number of full trainings whose epochs every arm may spend."""
MEDIAN_SHARE = 0.72
"""The share of the epochs that the median pruner leaves of a search, by `scheduling.py`'s curves."""
FRESH = [900_101, 900_103, 900_105, 900_107]
TUTORIAL = {
    "scaling": ["unit"],
    "optimizer": ["adam", "momentum", "sgd"],
    "weight_decay": ["l2"],
    "dropout": ["none", "dropout"],
    "normalization": ["none", "batch"],
    "initialization": ["he_normal", "glorot_uniform"],
    "clipping": ["none", "norm"],
    "schedule": ["constant", "exponential"],
}


def tutorial_space(space: Space[Any]) -> Space[Any]:
    """Return a space of what tutorials search; all other stages are off."""
    narrowed = {}
    for stage, domain in ((path, space.domains[path]) for path in space.domains if "." not in path):
        kinds = [kind for kind in TUTORIAL.get(stage, ["none"]) if kind in domain.extremes()]
        if kinds:
            narrowed[stage] = kinds
    return space.narrow(narrowed)


def by_optuna(
    known: Known, space: Space[Any], sampler: BaseSampler, pruner: BasePruner, seed: int
) -> tuple[Tricks, int]:
    """Search with Optuna's ask and tell; return the best recipe, and the epochs spent."""
    task, left = known.task, TRAININGS * known.task.epochs
    study = optuna.create_study(direction=task.direction, sampler=sampler, pruner=pruner)
    recipes: dict[int, Tricks] = {}
    while left > 0:
        trial = study.ask()
        recipes[trial.number] = recipe = space.suggest(trial)
        result = train(task, recipe, 1_000 * seed + trial.number, _reporting(trial))
        left -= max(len(result.epochs), 1)
        state = {"complete": "COMPLETE", "pruned": "PRUNED"}.get(result.state, "FAIL")
        value = result.score if state == "COMPLETE" else None
        study.tell(trial, value, state=optuna.trial.TrialState[state])
    return recipes[study.best_trial.number], TRAININGS * task.epochs - left


def _reporting(trial: optuna.Trial) -> Callable[[Any], bool]:
    def report(epoch: Any) -> bool:
        trial.report(epoch.score, epoch.number)
        return trial.should_prune()

    return report


def one_epoch(known: Known, space: Space[Any], seed: int) -> tuple[Tricks, int]:
    """Train random recipes for one epoch, and the best tenth to the end."""
    task, sign = known.task, 1 if known.task.mode == "max" else -1
    study = optuna.create_study(sampler=RandomSampler(seed=seed))
    count = round(TRAININGS / (1 / task.epochs + 0.1))
    first = []
    for number in range(count):
        recipe = space.suggest(study.ask())
        result = train(task, recipe, 1_000 * seed + number, lambda epoch: True)
        if result.epochs:
            first.append((sign * result.epochs[0].score, number, recipe))
    ended = []
    for _, number, recipe in sorted(first, key=lambda one: (-one[0], one[1]))[: count // 10]:
        result = train(task, recipe, 1_000 * seed + number)
        if result.state == "complete":
            ended.append((sign * (result.score or 0.0), -number, recipe))
    return max(ended, key=lambda one: one[:2])[2], count + len(ended) * task.epochs


def ours(
    known: Known, space: Space[Any], seed: int, *, sampler: str = "tricks", pruner: str = "pause"
) -> tuple[Tricks, int]:
    """Search as a script does; return the best recipe by evidence, and the epochs spent."""
    task = known.task
    share = 1 / PAUSE_AFTER + (1 - 1 / PAUSE_AFTER) / GOING_ON if pruner == "pause" else MEDIAN_SHARE
    count = round((TRAININGS - 2) / share) + 2
    study, _ = studied(known, seed, sampler, pruner, n_trials=count)
    trials = finished(study)
    search: Any = SimpleNamespace(history=trials, task=task, space=space)
    best = next(iter(by_evidence(search).values()))
    outcome = Outcome.read(best)
    assert outcome is not None  # it was trained
    return task.tricks.parse(outcome.recipe), epochs_of(trials)


def ours_with_verdict(known: Known, seed: int) -> tuple[Tricks, int]:
    """Search and judge within the epochs; return the champion's recipe, and the epochs spent."""
    budget = f"{TRAININGS * known.task.epochs} epochs"
    study, summary = studied(known, seed, budget=budget, finalists=3, seeds=3)
    verdict = summary.verdict
    assert verdict is not None  # the budget affords one
    spent = epochs_of(finished(study)) + verdict.spent * known.task.epochs
    (champion,) = [trial for trial in finished(study) if trial.number == verdict.trial]
    outcome = Outcome.read(champion)
    assert outcome is not None
    return known.task.tricks.parse(outcome.recipe), spent


def studied(
    known: Known, seed: int, sampler: str = "tricks", pruner: str = "pause", **limits: Any
) -> tuple[optuna.Study, Summary]:
    """Run a study as a script does, in memory."""
    task = known.task
    with TemporaryDirectory() as folder:
        study = create_study(
            task.name,
            storage=None,
            direction=task.direction,
            epochs=task.epochs,
            sampler=sampler,
            pruner=pruner,
            seed=seed,
        )
        where = {"workers": "inline", "tracking_uri": None, "checkpoints": folder, "progress": False}
        return study, optimize(study, task, seed=seed, fuse="off", **where, **limits)


def epochs_of(trials: Iterable[FrozenTrial]) -> int:
    """Return the epochs that some trials took."""
    return sum(len(trial.intermediate_values) for trial in trials if not is_repeat(trial))


def searched(known: Known, space: Space[Any], arm: str, seed: int) -> tuple[Tricks, int]:
    """Return an arm's choice, and the epochs that it spent."""
    if arm == "baseline":
        return space.nearest(known.task.reference()), 0
    if arm == "ours, verdict":
        return ours_with_verdict(known, seed)
    if arm in OURS:
        return ours(known, space, seed, **OURS[arm])
    if arm == "one epoch":
        return one_epoch(known, space, seed)
    space = tutorial_space(space) if arm == "tutorial" else space
    sampler = (
        GPSampler(seed=seed, warn_independent_sampling=False) if arm == "gp" else TPESampler(seed=seed)
    )
    pruner = SuccessiveHalvingPruner() if arm == "asha" else NopPruner()
    return by_optuna(known, space, sampler, pruner, seed)


OURS: dict[str, dict[str, str]] = {
    "ours": {},
    "ours, median": {"pruner": "median"},
    "tpe, paused": {"sampler": "tpe"},
}
"""What each variant of our search changes in it."""
ARMS = ("baseline", *OURS, "ours, verdict", "tutorial", "tpe", "gp", "asha", "one epoch")


def run(name: str, arm: str, seed: int) -> dict[str, Any]:
    """Search with an arm on a task; return what it chose and how good that is."""
    known = TASKS[name]()
    space, _ = check(known.task, Space(known.task.tricks))
    begin = time.process_time()
    recipe, epochs = searched(known, space, arm, seed)
    seconds = time.process_time() - begin
    sign = 1 if known.task.mode == "max" else -1
    return {
        "task": name,
        "arm": arm,
        "seed": seed,
        "truth": float(sign * truth(known, recipe, FRESH).mean()),
        "epochs": epochs,
        "seconds": round(seconds, 1),
    }


def summary() -> None:
    """Print each arm's truth and difference to ours by task; then its mean regret and seconds."""
    rows = held_rows(RESULTS)
    regrets: dict[str, list[float]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    for name in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == name]
        print(f"{name:22} truth                 − ours                epochs  seconds")
        least = min(map(_error, own))
        mine = {row["seed"]: row["truth"] for row in own if row["arm"] == "ours"}
        for arm in ARMS:
            some = {row["seed"]: row for row in own if row["arm"] == arm}
            if not some:
                continue
            regrets[arm].append(100 * np.mean([_error(row) / least - 1 for row in some.values()]))
            means = [np.mean([row[key] for row in some.values()]) for key in ("epochs", "seconds")]
            seconds[arm].append(means[1])
            truths = mean_interval([row["truth"] for row in some.values()])
            both = sorted(some.keys() & mine.keys())
            gap = difference([some[s]["truth"] for s in both], [mine[s] for s in both]) if both else None
            print(
                f"  {arm:20} {truths!s:20}  {'' if gap is None or arm == 'ours' else gap.signed:20} "
                + "  ".join(f"{mean:7.0f}" for mean in means)
            )
    print("\nregret, %, and seconds: means over tasks")
    for arm in ARMS:
        if arm in regrets:
            gap = [theirs - ours for theirs, ours in zip(regrets[arm], regrets["ours"], strict=False)]
            beyond = "" if arm == "ours" else f"; − ours {mean_interval(gap).signed}"
            print(f"{arm:16} {mean_interval(regrets[arm])}  {np.mean(seconds[arm]):5.0f} s{beyond}")


def _error(row: dict[str, Any]) -> float:
    """Return a choice's error: its loss, or 1 − its accuracy."""
    truth: float = row["truth"]
    return -truth if truth < 0 else 1 - truth


def main() -> None:
    """Run the searches that are missing, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tasks", nargs="*", metavar="task", help=", ".join(TASKS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--summary", action="store_true")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    if unknown := set(given.tasks) - set(TASKS):
        sys.exit(f"there is no task {sorted(unknown)[0]!r}: it must be one of {', '.join(TASKS)}")
    held = {(row["task"], row["arm"], row["seed"]) for row in held_rows(RESULTS)}
    for seed in range(0 if given.summary else given.seeds):
        for name in given.tasks or HELD_OUT:
            for arm in given.arms:
                if (name, arm, seed) not in held:
                    line = json.dumps(run(name, arm, seed))
                    with RESULTS.open("a") as file:
                        file.write(f"{line}\n")
    summary()


if __name__ == "__main__":
    main()
