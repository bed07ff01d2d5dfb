"""Are the numbers of a verdict true? Tested on simulated tasks with known truth; nothing is trained.

The tasks are those of `surfaces.py`. A training adds the noise of its seed; all recipes share a part of
it. A set of samples is finite: on 600 samples a recipe scores above or below its truth by an amount
that all of its seeds share. A study is 40 recipes drawn from `Space(Tricks)`, scored once each on one
validation set, and a verdict of as many trainings as the search.

For each size of the effects it prints

- gain: the champion's true score minus the baseline's, in points
- wrong: studies that confirm a gain where there is none
- worse: studies with a champion that is truly worse than the baseline
- held: share of studies in which the 95% interval of the candidate's gain holds the truth
- found: studies that confirm a gain where the best finalist is truly better by 0.3 points or more

Next to these, it prints the same for the rule that is often used: train the finalists and the baseline
over equally many seeds and compare them on the validation set. Take the best mean if a paired t-test
calls it better (Bonferroni), otherwise the simplest recipe that the test does not call worse. It also
prints how far the true scores of the six finalists are above the mean, if chosen by their scores or by
all evidence.

    python benchmarks/calibration.py [--studies 200]
"""

import argparse
from dataclasses import dataclass, field

import numpy as np
import optuna
from scipy import stats
from surfaces import GRAIN, OWN, Surface, kinds_of

from lightning_tricks import Space, Tricks
from lightning_tricks.selection.ablation import level_for, worth
from lightning_tricks.selection.arms import AGAIN, arms, rates, steadiest
from lightning_tricks.selection.crossed import crossed_interval
from lightning_tricks.selection.evidence import shrunk
from lightning_tricks.selection.halving import Halving
from lightning_tricks.selection.looks import error_of, levels, looks_up_to
from lightning_tricks.selection.result import Gain, simplicity

TRIALS, FINALISTS, SEEDS, ABLATION_SEEDS = 40, 6, 5, 5
CHOOSING = 0.4
SHARED = 0.3
"""Noise of a seed that all recipes share, in points; `surfaces.py` has a training's own noise."""
SAMPLE = 0.5
"""Difference of two recipes on one set of 600 samples beyond the truth, for all seeds, in points."""
MORE = 3
"""Ratio of the samples that compare to those that validate a trial, for data that are not split."""
BLOCKS = 30


@dataclass
class Samples:
    """A set of samples, which favors some kinds of tricks more than the truth does."""

    generator: np.random.Generator
    spread: float
    effects: dict = field(default_factory=dict)

    def of(self, recipe):
        """Return each block's score of a recipe minus the recipe's truth."""
        places = kinds_of(recipe)
        scale = self.spread * np.sqrt(BLOCKS / len(places))
        for place in places:
            if place not in self.effects:
                self.effects[place] = self.generator.normal(0, scale, BLOCKS)
        return np.sum([self.effects[place] for place in places], axis=0)


class Trainings:
    """Simulates trainings on a surface: scores by seed, on blocks of samples."""

    def __init__(self, surface, spread=SAMPLE):
        self.surface, self.generator = surface, surface.generator
        self.validation = Samples(self.generator, spread)
        self.unseen = Samples(self.generator, spread / np.sqrt(MORE))
        self.shared = {}

    def blocks(self, recipe, seed, samples):
        """Return the score of a training on each block."""
        shared = self.shared.setdefault(seed, self.generator.normal(0, SHARED))
        own = self.generator.normal(0, 0.8 * OWN)
        noise = self.generator.normal(0, 0.6 * OWN * np.sqrt(BLOCKS), BLOCKS)
        return self.surface.truth(recipe) + shared + own + noise + samples.of(recipe)

    def score(self, recipe, seed):
        """Return the score of a training on the validation set."""
        return round(self.blocks(recipe, seed, self.validation).mean() / GRAIN) * GRAIN


def search(trainings, number):
    """Return the recipes of a search with their scores, the baseline first."""
    space = Space(Tricks)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number))
    recipes = [Tricks(), Tricks.plain(), *(space.suggest(study.ask()) for _ in range(TRIALS - 2))]
    return recipes, [trainings.score(recipe, ("search", at)) for at, recipe in enumerate(recipes)]


def best(recipes, worth_of):
    """Return the indices of the finalists."""
    ranked = sorted(range(1, len(recipes)), key=lambda at: -worth_of[at])
    return ranked[:FINALISTS]


def verdict(trainings, recipes, finalists, budget, samples, tried):
    """Return the candidate, its gain and its label, as the package finds them."""
    halving = Halving([str(at) for at in finalists], int(CHOOSING * budget))
    while seeds := halving.seeds():
        for _ in range(seeds):
            seed = ("choose", halving.spent)
            halving.add({n: trainings.score(recipes[int(n)], seed) for n in halving.running})
        halving.drop()
    candidate = int(halving.best)
    looks = looks_up_to(SEEDS, max((budget - halving.spent - 3) // 2, SEEDS))
    margin, gain = None, None
    pairs = []
    for look, level in zip(looks, levels(looks, error_of(0) / tried), strict=True):
        for seed in range(len(pairs), look):
            both = (recipes[candidate], recipes[0])
            pairs.append([trainings.blocks(recipe, ("compare", seed), samples) for recipe in both])
        values = np.array(pairs)
        margin = margin or 0.5 * values[:, 1].mean(1).std(ddof=1)
        found = crossed_interval(values[:, 0] - values[:, 1], level)
        gain = Gain(found, "accuracy", look, 600, chose=tried > 1)
        if found.half_width <= margin:
            break
    return candidate, gain, gain.label(margin)


def former(trainings, recipes, finalists, budget):
    """Return the champion by the rule that is often used, and whether the rule calls it better."""
    names = [0, *finalists]
    seeds = budget // len(names)
    scores = {
        at: np.array([trainings.score(recipes[at], ("former", s)) for s in range(seeds)]) for at in names
    }
    top = max(names, key=lambda at: scores[at].mean())

    def p(other):
        gaps = scores[top] - scores[other]
        return 1.0 if not gaps.std() else float(stats.ttest_1samp(gaps, 0, alternative="greater").pvalue)

    if top and p(0) < 0.05 / len(finalists):
        return top, True
    tied = [at for at in names if at == top or p(at) >= 0.05]
    return min(tied, key=lambda at: simplicity(recipes[at])), False


def tune(surface, tried):
    """Return the recipe at its best learning rate, as an ablation finds it."""
    known = {str(recipe.optimizer.lr): recipe for recipe in tried}
    once = {lr: surface.train(recipe) for lr, recipe in known.items()}
    short = sorted(once, key=once.get, reverse=True)[:AGAIN]
    return known[steadiest(short, once, {lr: surface.train(known[lr]) for lr in short})]


def ablation(surface, champion):
    """Return for each arm the interval of its trick's worth, and the true worth."""
    space, plain = Space(Tricks), Tricks.plain()
    compared = arms(space, champion, plain)
    recipes = {"champion": champion, "plain": plain, **{arm.name: arm.recipe for arm in compared}}
    tuned = {name: tune(surface, rates(space, recipe)) for name, recipe in recipes.items()}
    scores = {name: {} for name in tuned}
    for seed in range(ABLATION_SEEDS):
        shared = surface.generator.normal(0, SHARED)
        for name, recipe in tuned.items():
            scores[name][seed] = surface.train(recipe, shared)
    found = []
    for arm in compared:
        pair = ("champion", arm.name) if arm.family == "leave one out" else (arm.name, "plain")
        interval = worth(*(scores[name] for name in pair), level_for(len(compared)), 1)
        better, worse = (surface.truth(tuned[name]) for name in pair)
        found.append((interval, better - worse))
    return found


def study(number, size, *, unseen=True, seed=0):
    """Return the outcomes of one study that are counted.

    Args:
        number: the number of the study.
        size: the size of the effects, in points.
        unseen: whether the verdict compares on samples that chose nothing.
        seed: the seed of everything that is drawn.
    """
    surface = Surface(np.random.default_rng([seed, number]), size)
    trainings = Trainings(surface)
    recipes, scores = search(trainings, number)
    truths = np.array([surface.truth(recipe) for recipe in recipes])
    lucky, likely = best(recipes, scores), best(recipes, shrunk(recipes, scores, Space(Tricks), "max"))
    samples, tried = (trainings.unseen, 1) if unseen else (trainings.validation, TRIALS)
    candidate, gain, label = verdict(trainings, recipes, likely, TRIALS, samples, tried)
    champion = candidate if label == "Confirmed gain" else 0
    other, claimed = former(trainings, recipes, lucky, TRIALS)
    arms_found = ablation(surface, recipes[lucky[0]])
    true = truths[candidate] - truths[0]
    there = truths[likely].max() - truths[0] >= 0.3
    return {
        "gain": truths[champion] - truths[0],
        "wrong": label == "Confirmed gain" and true <= 0,
        "worse": truths[champion] < truths[0],
        "held": gain.interval.low <= true <= gain.interval.high,
        "there": there,
        "found": there and label == "Confirmed gain",
        "former gain": truths[other] - truths[0],
        "former wrong": claimed and truths[other] <= truths[0],
        "former worse": truths[other] < truths[0],
        "former found": there and claimed,
        "by score": truths[lucky].mean() - truths.mean(),
        "by evidence": truths[likely].mean() - truths.mean(),
        "together": all(held.low <= true <= held.high for held, true in arms_found),
        "effective": any(held.excludes_zero for held, _ in arms_found),
    }


def repeat(studies, size, *, unseen=True, seed=0):
    """Return the outcomes of some studies on surfaces of one kind, as an array for each name."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = [study(number, size, unseen=unseen, seed=seed) for number in range(studies)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def main():
    """Print the results for surfaces with and without effects."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=200)
    studies = parser.parse_args().studies
    for unseen in (True, False):
        where = "samples that chose nothing" if unseen else "the validation set that chose"
        print(f"compared on {where}, {studies} studies each; in brackets the rule that is often used")
        print("effects    gain            wrong      worse      held    found")
        for size in (0.0, 0.05, 0.15, 0.5):
            found = repeat(studies, size, unseen=unseen)
            sums = {name: values.sum() for name, values in found.items()}
            print(
                f"{size:4} pt  {found['gain'].mean():+.2f} ({found['former gain'].mean():+.2f})"
                f"  {sums['wrong']:4} ({sums['former wrong']:3})  {sums['worse']:4} "
                f"({sums['former worse']:3})  {100 * found['held'].mean():5.1f}%"
                f"  {sums['found']:4} ({sums['former found']:3}) of {sums['there']}"
            )
            if unseen:
                print(
                    f"         finalists above the mean: {found['by evidence'].mean():+.2f} points by "
                    f"evidence, {found['by score'].mean():+.2f} by score\n"
                    f"         ablations with all intervals true: {100 * found['together'].mean():.1f}%"
                    f"; that call any trick effective: {sums['effective']}"
                )


if __name__ == "__main__":
    main()
