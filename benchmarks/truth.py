"""Is a verdict true? Studies of real tasks, compared with samples and seeds that they did not use.

Each study runs as in the scripts: 40 trials (30 for the convnet), 6 finalists, 5 seeds or more. Its
candidate and its baseline are then trained over 12 fresh seeds (8 for the convnet) and scored on the
task's unseen samples. That gives the truth about the candidate's gain. It counts

- gain: true score of the champion minus that of the baseline; 0 if the baseline stays the champion
- wrong: studies that confirm a gain although the truth is not above 0
- worse: studies with a champion truly worse than the baseline, by an interval that excludes 0
- held: studies in which the printed 95% interval of the candidate's gain holds the truth

    python benchmarks/truth.py mnist-5k --studies 20        # continues where it stopped
    python benchmarks/truth.py --summary

Results are in `truth.jsonl` in the working folder, one line per study. The scores of recipes are kept
next to it and reused.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from tasks import TASKS

from lightning_tricks import create_study, optimize, train
from lightning_tricks.selection.crossed import crossed_interval

RESULTS, CACHE = Path("truth.jsonl"), Path("truth")
SEEDS = range(900_001, 900_025, 2)


def truth(known, recipe, seeds):
    """Return the scores of a recipe on the unseen samples, of shape (seeds, blocks)."""
    key = json.dumps([known.task.name, recipe.model_dump(), list(seeds)], sort_keys=True)
    path = CACHE / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    if path.exists():
        return np.load(path)
    found = [known.scores(recipe, each) for each in train(known.task.rerun(), recipe, seeds=seeds)]
    CACHE.mkdir(exist_ok=True)
    np.save(path, np.stack(found))
    return np.stack(found)


def study(name, seed):
    """Run a study of a task; return its verdict and the truth."""
    known = TASKS[name]()
    trials, seeds = (30, SEEDS[:8]) if name == "fashion-10000-convnet" else (40, SEEDS)
    with tempfile.TemporaryDirectory() as folder:
        made = create_study(name, storage=None, direction=known.task.direction, seed=seed)
        where = {"tracking_uri": f"sqlite:///{folder}/mlflow.db", "checkpoints": folder}
        summary = optimize(
            made,
            known.task,
            n_trials=trials,
            seed=seed,
            finalists=6,
            workers="inline",
            progress=False,
            **where,
        )
    verdict = summary.verdict
    held = {trial.number: trial.user_attrs["tricks:outcome"]["recipe"] for trial in made.trials}
    recipe = known.task.tricks.parse(held[verdict.candidate_trial])
    sign = 1 if known.task.mode == "max" else -1
    mine, theirs = truth(known, recipe, seeds), truth(known, known.task.reference(), seeds)
    true = crossed_interval(sign * (mine - theirs))
    gain = verdict.gain.interval
    return {
        "task": name,
        "study": seed,
        "label": verdict.label,
        "candidate": verdict.candidate,
        "gain": [gain.mean, gain.low, gain.high],
        "seeds": verdict.gain.seeds,
        "samples": verdict.gain.samples,
        "margin": verdict.margin,
        "budget": verdict.budget,
        "truth": [true.mean, true.low, true.high],
        "baseline": float(theirs.mean()),
        "tests": {
            name: [row.test.mean, row.test.low, row.test.high] for name, row in verdict.rows.items()
        },
    }


def held_rows(path=RESULTS):
    """Return the results so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summary():
    """Print the four figures for each task and for all tasks."""
    rows = held_rows()
    print("task               studies  confirmed  wrong  worse   held   gain (mean)  candidate's truth")
    for name in [*TASKS, "all"]:
        some = [row for row in rows if name in (row["task"], "all")]
        if not some:
            continue
        confirmed = [row for row in some if row["label"] == "Confirmed gain"]
        wrong = sum(row["truth"][0] <= 0 for row in confirmed)
        worse = sum(row["truth"][2] < 0 for row in confirmed)
        held = sum(row["gain"][1] <= row["truth"][0] <= row["gain"][2] for row in some)
        gain = sum(row["truth"][0] for row in confirmed) / len(some)
        of_all = np.mean([row["truth"][0] for row in some])
        print(
            f"{name:18} {len(some):7} {len(confirmed):10} {wrong:6} {worse:6} {held:3}/{len(some):<3}"
            f" {gain:+12.4f} {of_all:+18.4f}"
        )


def main():
    """Run the studies that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("task", nargs="?", choices=sorted(TASKS))
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--summary", action="store_true")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if given.task is None or given.summary:
        return summary()
    done = {(row["task"], row["study"]) for row in held_rows()}
    for seed in range(given.studies):
        if (given.task, seed) not in done:
            line = json.dumps(study(given.task, seed))
            with RESULTS.open("a") as file:
                file.write(f"{line}\n")
            print(line)
    return None


if __name__ == "__main__":
    sys.exit(main())
