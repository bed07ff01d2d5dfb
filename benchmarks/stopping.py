"""When does a search under a budget end by itself, and what does that cost? On simulated tasks.

A search of 480 trials runs to its end. After every fourth trial the rule of `outlook.py` decides whether
further trials matter; when it first says no, a study under a budget would end. Prints the
number of trials then, and by how much the recipe that is chosen after 480 trials is better, in standard
deviations of a training's noise (the mean over seeds with its 95% interval).

    python benchmarks/stopping.py [--seeds 4]
"""

import argparse

import numpy as np
import optuna
from search import SPACE
from surfaces import OWN, Surface

from lightning_tricks import Tricks
from lightning_tricks.search.sampling.outlook import matters
from lightning_tricks.search.sampling.trick_sampler import TrickSampler
from lightning_tricks.selection.intervals import mean_interval

TRIALS, EVERY, FIRST_SEED = 480, 4, 3000
SURFACES = {
    "near, large effects": {"size": 0.5, "raised": 1.0},
    "far, large effects": {"size": 0.5},
    "near, small effects": {"size": 0.15, "raised": 0.3},
    "no effects": {"size": 0.0},
}


def ended(seed, **surface):
    """Return after how many trials a search ends, and what is lost by that."""
    simulated = Surface(np.random.default_rng(seed), **surface)
    study = optuna.create_study(direction="maximize", sampler=TrickSampler(seed))
    for recipe in (Tricks(), Tricks.plain()):
        study.enqueue_trial(SPACE.params(recipe))
    best, end = (-np.inf, None), None
    for number in range(1, TRIALS + 1):
        trial = study.ask()
        recipe = SPACE.suggest(trial)
        score = simulated.train(recipe)
        study.tell(trial, score)
        best = max(best, (score, recipe), key=lambda pair: pair[0])
        if end is None and number % EVERY == 0 and not matters(study):
            end = number, simulated.truth(best[1])
    last = simulated.truth(best[1])
    trials, truth = end or (TRIALS, last)
    return trials, (last - truth) / OWN


def main():
    """Print when searches end on each kind of surface, and what is lost."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=4)
    seeds = range(FIRST_SEED, FIRST_SEED + parser.parse_args().seeds)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    lost = []
    for name, surface in SURFACES.items():
        found = [ended(seed, **surface) for seed in seeds]
        ends = sorted(trials for trials, _ in found)
        lost += [loss for _, loss in found]
        print(
            f"{name:20} ends after {ends} trials, loses {mean_interval([loss for _, loss in found])}",
            flush=True,
        )
    print(f"{'all':20} loses {mean_interval(lost)}")


if __name__ == "__main__":
    main()
