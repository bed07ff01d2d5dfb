"""Simulated tasks with known truth: nothing is trained.

A recipe's score is the sum of the effects of its kinds, of a third of the pairs of kinds, and of the
distance of its learning rate from the best one. A training adds noise.
"""

import itertools

import numpy as np

from lightning_tricks import Tricks
from lightning_tricks.space.trick import stages, variants

OWN, GRAIN = 0.6, 0.28
"""Noise of a training, and the step of one sample of 360, in points."""
BEST_LR = 10**-2.3
STARTS = 8
"""Number of searches for the best recipe, each from another random recipe."""


class Surface:
    """A simulated task with known truth.

    Args:
        generator: the random generator of its effects.
        size: the standard deviation of a kind's effect, in points; 0 makes all recipes equal.
        raised: points added to the effect of each kind of the baseline.
    """

    def __init__(self, generator, size, raised=0.0):
        self.generator, self.size = generator, size
        self.kinds = {
            (stage, kind): generator.normal(0, size)
            for stage, options in stages(Tricks).items()
            for kind in options
        }
        pairs = itertools.combinations(sorted(self.kinds), 2)
        self.pairs = {
            pair: generator.normal(0, size / 3) for pair in pairs if generator.random() < 1 / 3
        }
        for place in kinds_of(Tricks()):
            self.kinds[place] += raised

    def truth(self, recipe):
        """Return the true score of a recipe, in points."""
        chosen = kinds_of(recipe)
        effects = sum(self.kinds[place] for place in chosen)
        together = sum(self.pairs.get(pair, 0.0) for pair in itertools.combinations(sorted(chosen), 2))
        lr = abs(np.log10(recipe.optimizer.lr) - np.log10(BEST_LR))
        return 90 + effects + together - self.size * lr

    def train(self, recipe, shared=0.0):
        """Return the noisy score of a training."""
        score = self.truth(recipe) + shared + self.generator.normal(0, OWN)
        return round(score / GRAIN) * GRAIN

    def optimum(self, space, seed=0):
        """Return the best true score of a space, by changing one stage at a time until nothing helps."""
        options = _options(space)
        generator = np.random.default_rng(seed)
        drawn = [
            {stage: kinds[generator.integers(len(kinds))] for stage, kinds in options.items()}
            for _ in range(STARTS)
        ]
        starts = [Tricks(), *(Tricks(**stages) for stages in drawn)]
        return max(self.truth(self._climbed(start, options)) for start in starts)

    def _climbed(self, recipe, options):
        while True:
            better = max(_neighbors(recipe, options), key=self.truth)
            if self.truth(better) <= self.truth(recipe):
                return recipe
            recipe = better

    def helping(self, space):
        """Return the gains of all changes of one stage that make the baseline better."""
        gains = [self.truth(r) - self.truth(Tricks()) for r in _neighbors(Tricks(), _options(space))]
        return [gain for gain in gains if gain > 0]


def kinds_of(recipe):
    """Return the stages of a recipe, each with its kind."""
    return [(stage, getattr(recipe, stage).kind) for stage in stages(Tricks)]


def _options(space):
    """Return a space's variants of each stage, optimizers at the allowed rate nearest to the best."""
    return {
        stage: [
            _variant(space, stage, variants(field)[kind]) for kind in space.domains[stage].extremes()
        ]
        for stage, field in Tricks.model_fields.items()
    }


def _variant(space, stage, kind):
    variant = kind()
    if stage != "optimizer":
        return variant
    return kind(lr=space.domains[f"optimizer.{variant.kind}.lr"].nearest(BEST_LR))


def _neighbors(recipe, options):
    """Return the recipes that differ from a given one in one stage."""
    return [recipe.model_copy(update={stage: kind}) for stage in options for kind in options[stage]]
