"""How good is the recipe that a search finds? On surfaces with known truth, or on digits.

On surfaces nothing is trained: see `surfaces.py`. On near surfaces, the baseline's kinds are better than
most, so few changes help; on far ones, they are drawn like all others. The first two trials are the
baseline and plain, as in a study. The recipe with the best noisy score is chosen. Prints its true gain
over the baseline, in points, and its regret: its distance from the best recipe. Intervals are 95%
intervals of the mean over seeds (Student's t). "− ours" is the difference to our sampler, paired by seed
on the same surfaces.

    python benchmarks/search.py [--trials 40 200 1000] [--seeds 20] [--first 1000]
    python benchmarks/search.py --digits [--trials 40] [--seeds 5]
    python benchmarks/search.py --groups [--digits]

With `--digits`, trials train an MLP for 5 epochs. Prints the chosen recipe's test accuracy minus the
baseline's, each trained again over 5 seeds. With `--groups`, our sampler is compared with itself when it
draws trials of one shape together, for fused training, before any of their scores is known.
"""

import argparse
import statistics
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import GPSampler, RandomSampler, TPESampler
from surfaces import Surface

from lightning_tricks import Space, Tricks, train
from lightning_tricks.fusion.shape import shape_in
from lightning_tricks.search.sampling.shaped import PartialFixed
from lightning_tricks.search.sampling.trick_sampler import TrickSampler
from lightning_tricks.selection.intervals import difference, mean_interval
from lightning_tricks.study.grouping import LEARNED_A_MEMBER

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))

OURS = "ours (tricks)"
SAMPLERS = {
    OURS: (TrickSampler, 1000),
    "Optuna 5's TPESampler": (lambda seed: TPESampler(seed=seed), 1000),
    "TPESampler, multivariate, group": (
        lambda seed: TPESampler(seed=seed, multivariate=True, group=True),
        40,
    ),
    "GPSampler": (lambda seed: GPSampler(seed=seed), 40),
    "RandomSampler": (lambda seed: RandomSampler(seed=seed), 1000),
}
"""For each sampler, the function that makes it from a seed, and the largest affordable trial number."""
GROUPED = "ours, in groups"
SURFACES = {"near": {"size": 0.5, "raised": 1.0}, "far": {"size": 0.5}}
EPOCHS, FRESH, FRESH_SEED = 5, 5, 1_000_000
SPACE = Space(Tricks)


def search(sampler, space, score, marks, grouped=False):
    """Return the recipe with the best score after each of some numbers of trials.

    Args:
        sampler: the sampler that proposes recipes.
        space: the space of the recipes.
        score: a function that trains, given the number of a trial and its recipe.
        marks: the numbers of trials.
        grouped: whether trials of one shape are drawn together, in groups as large as in a study.
    """
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for recipe in (space.model(), space.model.plain()):
        study.enqueue_trial(space.params(recipe))
    best, found = (-np.inf, None), {}
    while len(found) < max(marks):
        size = min(len(found) // LEARNED_A_MEMBER, max(marks) - len(found)) if grouped else 1
        for trial, recipe in group(study, space, max(size, 1)):
            value = score(trial.number, recipe)
            study.tell(trial, value)
            best = max(best, (value, recipe), key=lambda pair: pair[0])  # on a tie the earlier
            found[trial.number + 1] = best[1]
    return [found[mark] for mark in marks]


def group(study, space, size):
    """Draw trials of one shape, as a study does for a fused group."""
    trial = study.ask()
    drawn = [(trial, space.suggest(trial))]
    sampler = study.sampler
    study.sampler = PartialFixed(shape_in(trial.params), sampler)
    for _ in range(size - 1):
        trial = study.ask()
        drawn.append((trial, space.suggest(trial)))
    study.sampler = sampler
    return drawn


def surface_gains(name, sampler, marks, seed, grouped=False):
    """Return the true gains over the baseline of the recipes chosen on a surface."""
    surface = Surface(np.random.default_rng(seed), **SURFACES[name])
    recipes = search(sampler(seed), SPACE, lambda number, recipe: surface.train(recipe), marks, grouped)
    return [surface.truth(recipe) - surface.truth(Tricks()) for recipe in recipes]


def digits_gains(task, sampler, marks, seed, grouped=False):
    """Return the gains over the baseline, in test accuracy, of the recipes chosen on digits."""
    from fresh_seeds import test_accuracy  # noqa: PLC0415  # takes seconds

    def score(number, recipe):
        result = train(task, recipe, seed=1000 * seed + number)
        return result.score if result.state == "complete" else 0.0

    def accuracy(recipe):
        seeds = range(FRESH_SEED + 1000 * seed, FRESH_SEED + 1000 * seed + FRESH)
        return statistics.mean(test_accuracy(task, recipe, fresh) for fresh in seeds)

    recipes = search(sampler(seed), Space(task.tricks), score, marks, grouped)
    return [accuracy(recipe) - accuracy(task.tricks()) for recipe in recipes]


def compare_on_digits(marks, seeds, samplers):
    """Compare the samplers on digits."""
    import digits  # noqa: PLC0415  # takes seconds

    task = replace(digits.task(), epochs=EPOCHS)
    print(f"digits, {task.epochs} epochs; test accuracy over {FRESH} fresh seeds; {len(seeds)} seeds")
    compare(partial(digits_gains, task), marks, seeds, samplers)


def best_gains(name, seeds):
    """Print the number of changes that help; return the best recipes' gains over the baseline."""
    surfaces = [Surface(np.random.default_rng(seed), **SURFACES[name]) for seed in seeds]
    helping = statistics.mean(len(surface.helping(SPACE)) for surface in surfaces)
    gains = [surface.optimum(SPACE) - surface.truth(Tricks()) for surface in surfaces]
    print(
        f"\n{name}: the best recipe is {np.mean(gains):.2f} points above the baseline, which "
        f"{helping:.0f} changes of one stage make better; {len(seeds)} seeds"
    )
    return gains


def compare(measure, marks, seeds, samplers, best=None):
    """Print each sampler's gain after each number of trials, ours first.

    Args:
        measure: a function that returns the gains of a sampler with a seed, after some numbers of
            trials, in groups or not.
        marks: the numbers of trials.
        seeds: the seeds of the surfaces, of their noise and of the samplers.
        samplers: as `SAMPLERS`.
        best: the gain of the best recipe by seed; None if unknown.
    """
    print(f"trials  {'sampler':24}  {'gain, points':>14}  {'− ours':>14}  {'regret' if best else ''}")
    ours = {}
    for name, (sampler, most) in samplers.items():
        for mark in [mark for mark in marks if mark > most]:
            print(f"{mark:6}  {name:24}  left out: it takes too long; {most} trials at most")
        if affordable := [mark for mark in marks if mark <= most]:
            gains = np.array([measure(sampler, affordable, s, name == GROUPED) for s in seeds])
            for mark, column in zip(affordable, gains.T, strict=True):
                print_row(mark, name, column, ours.setdefault(mark, column), best)


def print_row(mark, name, gains, ours, best):
    """Print the gain of a sampler, the difference to ours, and the regret."""
    against = "" if name == OURS else written(difference(gains, ours))
    regret = f"{np.mean(best) - np.mean(gains):.2f}" if best else ""
    print(
        f"{mark:6}  {name:24}  {written(mean_interval(gains)):>14}  {against:>14}  {regret}", flush=True
    )


def written(interval):
    """Return an interval as text, with two decimals."""
    return f"{interval.mean:.2f} ± {(interval.high - interval.low) / 2:.2f}"


def main():
    """Compare the samplers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, nargs="+")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--first", type=int, default=1000, help="the first seed")
    parser.add_argument("--digits", action="store_true")
    parser.add_argument("--groups", action="store_true")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    seeds = range(given.first, given.first + (given.seeds or (5 if given.digits else 20)))
    samplers = {OURS: SAMPLERS[OURS], GROUPED: SAMPLERS[OURS]} if given.groups else SAMPLERS
    if given.digits:
        compare_on_digits(given.trials or [40], seeds, samplers)
        return
    for name in SURFACES:
        best = best_gains(name, seeds)
        compare(partial(surface_gains, name), given.trials or [40, 200, 1000], seeds, samplers, best)


if __name__ == "__main__":
    main()
