"""Tasks whose truth is known: nothing is trained.

The score of a record is a sum of effects of its kinds, of a third of the pairs of them, and of how far
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
"""How many times the best record is looked for, each from another one."""


class Surface:
    """A task whose truth is known.

    Args:
        generator: of its effects.
        size: of the effect of a kind, in points; 0 makes all records equal.
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

    def truth(self, record):
        """Return the true score of a record, in points."""
        chosen = kinds_of(record)
        effects = sum(self.kinds[place] for place in chosen)
        together = sum(self.pairs.get(pair, 0.0) for pair in itertools.combinations(sorted(chosen), 2))
        lr = abs(np.log10(record.optimizer.lr) - np.log10(BEST_LR))
        return 90 + effects + together - self.size * lr

    def train(self, record, shared=0.0):
        """Return the score of a training."""
        score = self.truth(record) + shared + self.generator.normal(0, OWN)
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

    def _climbed(self, record, options):
        while True:
            better = max(_neighbors(record, options), key=self.truth)
            if self.truth(better) <= self.truth(record):
                return record
            record = better

    def helping(self, space):
        """Return by how much each change of one stage of the baseline makes it better, if it does."""
        gains = [self.truth(r) - self.truth(Tricks()) for r in _neighbors(Tricks(), _options(space))]
        return [gain for gain in gains if gain > 0]


def kinds_of(record):
    """Return the stages of a record, each with its kind."""
    return [(stage, getattr(record, stage).kind) for stage in stages(Tricks)]


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


def _neighbors(record, options):
    """Return the records that differ from a given one in one stage."""
    return [record.model_copy(update={stage: kind}) for stage in options for kind in options[stage]]
