"""Learning curves of many recipes on the tasks of `tasks.py`, to design schedulers and priors on.

Each task gets 300 recipes: a third from the whole space, the rest the baseline with one to four stages
drawn again. Each is trained over two seeds, and scored on unseen samples at the end.

    python benchmarks/curves.py record english vowels    # continues where it stopped
    python benchmarks/curves.py pack                     # all that is recorded, as `curves.jsonl.gz`
    python benchmarks/curves.py prior                    # from that, the prior that the package ships

Each line holds a task, the recipe's parameters, both seeds' scores by epoch, their scores on unseen
samples, and the seconds of a training. Recipe 0 is the baseline. A training that diverged has a shorter
curve and no score on unseen samples.
"""

import argparse
import gzip
import json
import math
import random
import sys
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
import yaml
from optuna.samplers import RandomSampler
from scipy import stats
from tasks import DESIGN, TASKS, Known

from lightning_tricks import Space, Tricks, train
from lightning_tricks.search.sampling import prior
from lightning_tricks.task.checks import check

RECIPES, SEEDS = 300, (11, 22)
RIDGE, WEIGHT = 30.0, 200.0
"""Strength of the ridge, and the number of recipes that a task counts for."""
FOLDER, PACKED = Path("curves"), Path(__file__).parent / "curves.jsonl.gz"
PRIOR = Path(prior.__file__).with_name("prior.yaml")


def recipes(space: Space[Any], baseline: Tricks) -> Iterator[Tricks]:
    """Yield the baseline, then one recipe of the whole space for two near the baseline, in turns."""
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    luck = random.Random(0)
    yield baseline
    while True:
        drawn = space.suggest(study.ask())
        yield drawn
        for _ in range(2):
            drawn = space.suggest(study.ask())
            stages = luck.sample(sorted(type(drawn).model_fields), luck.randint(1, 4))
            changed = {stage: getattr(drawn, stage) for stage in stages}
            yield baseline.model_copy(update=changed)


def recorded(known: Known, number: int, space: Space[Any], recipe: Tricks) -> dict[str, Any]:
    """Train a recipe over the seeds and return its line."""
    results = [train(known.task.rerun(), recipe, seed) for seed in SEEDS]
    return {
        "task": known.task.name,
        "mode": known.task.mode,
        "number": number,
        "recipe": space.params(recipe),
        "curves": [[round(epoch.score, 5) for epoch in result.epochs] for result in results],
        "unseen": [
            round(float(known.scores(recipe, result).mean()), 5) if result.state == "complete" else None
            for result in results
        ],
        "seconds": round(sum(result.seconds for result in results) / len(SEEDS), 2),
    }


def record(name: str, count: int) -> None:
    """Record what is missing of a task."""
    known, path = TASKS[name](), FOLDER / f"{name}.jsonl"
    FOLDER.mkdir(exist_ok=True)
    held = {json.loads(line)["number"] for line in _lines(path)}
    space, _ = check(known.task, Space(known.task.tricks))
    baseline = space.nearest(known.task.reference())
    for number, recipe in zip(range(count), recipes(space, baseline), strict=False):
        if number not in held:
            line = json.dumps(recorded(known, number, space, space.nearest(recipe)))
            with path.open("a") as file:
                file.write(f"{line}\n")
    print(name, "is recorded")


def pack() -> None:
    """Write all that is recorded into one file."""
    with gzip.open(PACKED, "wt") as file:
        for path in sorted(FOLDER.glob("*.jsonl")):
            lines = sorted(_lines(path), key=lambda line: json.loads(line)["number"])
            file.writelines(f"{line}\n" for line in lines)


def held_curves() -> list[dict[str, Any]]:
    """Return the packed lines."""
    with gzip.open(PACKED, "rt") as file:
        return [json.loads(line) for line in file]


def effects(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return each kind's effect on the unseen score, in standard deviations of a task's recipes.

    A ridge regression of the normal quantiles of the scores on the kinds; all tasks weigh the same.
    """
    kinds = sorted({(stage, kind) for row in rows for stage, kind in _kinds(row)})
    normal, right = np.eye(len(kinds)) * RIDGE, np.zeros(len(kinds))
    for task in {row["task"] for row in rows}:
        own = [row for row in rows if row["task"] == task]
        chosen = np.array([[kind in _kinds(row) for kind in kinds] for row in own], dtype=float)
        chosen -= chosen.mean(0)
        scores = stats.norm.ppf((stats.rankdata([_unseen(row) for row in own]) - 0.5) / len(own))
        normal += chosen.T @ chosen / len(own) * WEIGHT
        right += chosen.T @ scores / len(own) * WEIGHT
    found: dict[str, dict[str, float]] = {}
    for (stage, kind), effect in zip(kinds, np.linalg.solve(normal, right), strict=True):
        found.setdefault(stage, {})[kind] = round(float(effect), 2)
    return found


def _kinds(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the kinds of a recipe by stage."""
    return [(path, value) for path, value in row["recipe"].items() if "." not in path]


def _unseen(row: dict[str, Any]) -> float:
    """Return the mean score on unseen samples, higher is better; the lowest if a training diverged."""
    scores = [-math.inf if score is None else score for score in row["unseen"]]
    return sum(scores) / len(scores) * (1 if row["mode"] == "max" or None in row["unseen"] else -1)


def write_prior() -> None:
    """Write the prior, learned from the design tasks."""
    rows = [row for row in held_curves() if row["task"] in DESIGN]
    about = ", ".join(f"{task} ({n})" for task, n in sorted(Counter(r["task"] for r in rows).items()))
    comment = (
        "The effect of each kind on a recipe's score, in standard deviations of a study's scores, as "
        "expected before the first trial. Made by `python benchmarks/curves.py prior` from two "
        f"trainings each of recipes of: {about}."
    )
    text = textwrap.fill(comment, 100, initial_indent="# ", subsequent_indent="# ")
    PRIOR.write_text(f"{text}\n{yaml.safe_dump(effects(rows), sort_keys=True)}")


def _lines(path: Path) -> list[str]:
    """Return the whole lines of a file; a program that died may have left half of one."""
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return whole.splitlines()


def main() -> None:
    """Record, pack, or write the prior."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("action", choices=["record", "pack", "prior"])
    parser.add_argument("tasks", nargs="*", metavar="task", help=", ".join(TASKS))
    parser.add_argument("--recipes", type=int, default=RECIPES)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if given.action == "pack":
        return pack()
    if given.action == "prior":
        return write_prior()
    if unknown := set(given.tasks) - set(TASKS):
        sys.exit(f"there is no task {sorted(unknown)[0]!r}: it must be one of {', '.join(TASKS)}")
    for name in given.tasks:
        record(name, given.recipes)
    return None


if __name__ == "__main__":
    main()
