"""Learning curves of many recipes on the tasks of `tasks.py`, to design schedulers and priors on.

Each task gets 300 recipes: a third from the whole space, the rest the baseline with one to four stages
drawn anew. Each is trained over two seeds, and scored on unseen samples at the end.

    python benchmarks/curves.py record english vowels    # continues where it stopped
    python benchmarks/curves.py pack                     # all that is recorded, as `curves.jsonl.gz`

Each line holds a task, the recipe's parameters, both seeds' scores by epoch, their scores on unseen
samples, and the seconds of a training. Recipe 0 is the baseline. A training that diverged has a shorter
curve and no score on unseen samples.
"""

import argparse
import gzip
import json
import random
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.samplers import RandomSampler
from tasks import TASKS, Known

from lightning_tricks import Space, Tricks, train
from lightning_tricks.task.checks import check

RECIPES, SEEDS = 300, (11, 22)
FOLDER, PACKED = Path("curves"), Path(__file__).parent / "curves.jsonl.gz"


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


def _lines(path: Path) -> list[str]:
    """Return the whole lines of a file; a program that died may have left half of one."""
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return whole.splitlines()


def main() -> None:
    """Record or pack."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("action", choices=["record", "pack"])
    parser.add_argument("tasks", nargs="*", metavar="task", help=", ".join(TASKS))
    parser.add_argument("--recipes", type=int, default=RECIPES)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if given.action == "pack":
        return pack()
    if unknown := set(given.tasks) - set(TASKS):
        sys.exit(f"there is no task {sorted(unknown)[0]!r}: it must be one of {', '.join(TASKS)}")
    for name in given.tasks:
        record(name, given.recipes)
    return None


if __name__ == "__main__":
    main()
