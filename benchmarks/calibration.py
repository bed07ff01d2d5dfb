"""Are the numbers of a verdict true? On tasks whose truth is known: nothing is trained.

The tasks are those of `surfaces.py`; a training adds noise: what all records have of a seed, what each
has of its own, and the grain of a validation split. A study is 40 records drawn from `Space(Tricks)`, of
which the best six by one score each enter a verdict of five seeds with the baseline and plain, as with
the flags `--finalists 6 --seeds 5`.

- coverage: in how many studies the champion's 95 % interval has its true score
- claims: where all effects are zero, how often the champion is called better than the baseline, by the
  seeds that chose it or by those of the report
- ablation: in how many studies all intervals of what the champion's tricks are worth are true together,
  each arm at its own learning rate; and, where all effects are zero, in how many any trick is called
  effective
- luck: by how much the best score of the search is above the truth of its record, and how much better
  the verdict's champion truly is than the baseline

    python benchmarks/calibration.py [--studies 200]
"""

import argparse

import numpy as np
import optuna
from surfaces import Surface

from lightning_tricks import Space, Tricks
from lightning_tricks.selection.ablation import level_for, worth
from lightning_tricks.selection.arms import AGAIN, arms, rates, steadiest
from lightning_tricks.selection.champion import choose
from lightning_tricks.selection.intervals import difference, mean_interval
from lightning_tricks.selection.race import Race

TRIALS, FINALISTS, SEEDS = 40, 6, 5
SHARED = 0.3
"""Points: the noise of a seed for all records; a training's own is in `surfaces.py`."""


def search(surface, seed):
    """Return the baseline, plain and the best records of a search, with their scores."""
    space = Space(Tricks)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    records = [space.suggest(study.ask()) for _ in range(TRIALS - 2)]
    found = sorted(((surface.train(r), n, r) for n, r in enumerate(records)), reverse=True)
    best = {f"trial {n}": (score, record) for score, n, record in found[:FINALISTS]}
    return {"baseline": (0.0, Tricks()), "plain": (0.0, Tricks.plain()), **best}


def verdict(surface, records):
    """Return the champion's name, whether it was called better, its interval and its gain."""
    race = Race(list(records), SEEDS)
    for _ in range(SEEDS):
        shared = surface.generator.normal(0, SHARED)
        race.add({name: surface.train(records[name], shared) for name in race.running})
    choice = choose(race, records, dict.fromkeys(records, 1.0))
    scores = {"champion": [], "baseline": []}
    for _ in range(SEEDS):
        shared = surface.generator.normal(0, SHARED)
        for row, name in (("champion", choice.name), ("baseline", "baseline")):
            scores[row].append(surface.train(records[name], shared))
    gain = difference(scores["champion"], scores["baseline"])
    return choice, mean_interval(scores["champion"]), gain


def tune(surface, tried):
    """Return the record at its best learning rate, as an ablation finds it."""
    known = {str(record.optimizer.lr): record for record in tried}
    once = {lr: surface.train(record) for lr, record in known.items()}
    short = sorted(once, key=once.get, reverse=True)[:AGAIN]
    return known[steadiest(short, once, {lr: surface.train(known[lr]) for lr in short})]


def ablation(surface, champion):
    """Return for each arm the interval of what its trick is worth, and the truth."""
    space, plain = Space(Tricks), Tricks.plain()
    compared = arms(space, champion, plain)
    records = {"champion": champion, "plain": plain, **{arm.name: arm.record for arm in compared}}
    tuned = {name: tune(surface, rates(space, record)) for name, record in records.items()}
    scores = {name: {} for name in tuned}
    for seed in range(SEEDS):
        shared = surface.generator.normal(0, SHARED)
        for name, record in tuned.items():
            scores[name][seed] = surface.train(record, shared)
    found = []
    for arm in compared:
        pair = ("champion", arm.name) if arm.family == "leave one out" else (arm.name, "plain")
        interval = worth(*(scores[name] for name in pair), level_for(len(compared)), 1)
        better, worse = (surface.truth(tuned[name]) for name in pair)
        found.append((interval, better - worse))
    return found


def repeat(studies, size, seed=0):
    """Return what is to be counted, of some studies on surfaces of one kind."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    counts = dict.fromkeys(("covered", "chosen", "reported", "together", "effective"), 0)
    luck, gains = [], []
    for number in range(studies):
        surface = Surface(np.random.default_rng([seed, number]), size)
        found = search(surface, number)
        records = {name: record for name, (_, record) in found.items()}
        choice, interval, gain = verdict(surface, records)
        truth = surface.truth(records[choice.name])
        counts["covered"] += interval.low <= truth <= interval.high
        counts["chosen"] += choice.better_than_baseline
        counts["reported"] += choice.name != "baseline" and gain.low > 0
        effects = ablation(surface, records[list(records)[2]])
        counts["together"] += all(held.low <= true <= held.high for held, true in effects)
        counts["effective"] += any(held.excludes_zero for held, _ in effects)
        score, record = found[list(found)[2]]
        luck.append(score - surface.truth(record))
        gains.append(truth - surface.truth(records["baseline"]))
    return counts, luck, gains


def main():
    """Print the counts for surfaces with and without effects."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=200)
    studies = parser.parse_args().studies
    for title, size in (("no effect", 0.0), ("small effects", 0.3), ("large effects", 1.0)):
        counts, luck, gains = repeat(studies, size)
        print(f"{title}: {studies} studies")
        covered = 100 * counts["covered"] / studies
        print(f"  the champion's interval has its true score in {covered:.1f} of 100")
        print(
            f"  it is called better than the baseline by the seeds that chose it in {counts['chosen']}"
        )
        print(f"  and by those of the report in {counts['reported']}")
        together = 100 * counts["together"] / studies
        print(f"  all intervals of its ablation are true together in {together:.1f} of 100")
        print(f"  any of its tricks is called effective in {counts['effective']}")
        print(f"  the best score of the search is {np.mean(luck):+.2f} points above its record's truth")
        print(f"  the champion's true gain over the baseline is {np.mean(gains):+.2f} points")


if __name__ == "__main__":
    main()
