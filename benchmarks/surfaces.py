"""Tasks whose truth is known: nothing is trained.

The score of a recipe is a sum of effects of its kinds, of a third of the pairs of them, and of how far
its learning rate is from the best; a training adds noise.
"""

import itertools

import numpy as np

from lightning_tricks import Tricks
from lightning_tricks.space.trick import stages, variants

OWN, GRAIN = 0.6, 0.28
"""Points: the noise of a training, and one sample of 360."""
BEST_LR = 10**-2.3
STARTS = 8
"""How many times the best recipe is looked for, each from another one."""


class Surface:
    """A task whose truth is known.

    Args:
        generator: of its effects.
        size: of the effect of a kind, in points; 0 makes all recipes equal.
        raised: by so much is each kind of the baseline better than its effect says, in points.
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
        """Return the score of a training."""
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
        """Return by how much each change of one stage of the baseline makes it better, if it does."""
        gains = [self.truth(r) - self.truth(Tricks()) for r in _neighbors(Tricks(), _options(space))]
        return [gain for gain in gains if gain > 0]


def kinds_of(recipe):
    """Return the stages of a recipe, each with its kind."""
    return [(stage, getattr(recipe, stage).kind) for stage in stages(Tricks)]


def _options(space):
    """Return the variants that a space has for each stage, each at the best rate it may have."""
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
