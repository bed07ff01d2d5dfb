"""Whether further trials of a search can still matter."""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.search.optuna_internals import trials_of
from lightning_tricks.search.order import mode_of
from lightning_tricks.search.outcomes import best_of
from lightning_tricks.search.promotion import is_paused
from lightning_tricks.search.sampling.effects import LEVEL
from lightning_tricks.search.sampling.features import Option, features_of, options_of, quantiles_of
from lightning_tricks.search.sampling.proposal import CHANGED

Vector = NDArray[np.floating[Any]]
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)

EFFECTS, NOISES = (0.002, 0.01, 0.03, 0.1, 0.3), (0.1, 0.2, 0.4, 0.7, 1.0)
"""Prior variances tried: of an option's effect, and of the noise; the most likely pair is used."""
DRAWS = 32
"""Number of draws of the effects, over which the gain is averaged."""
LEAST, LATEST = 40, 400
"""Minimum number of trials with a score before anything is said; and the number of latest ones used."""
LITTLE = 0.4
"""An expected gain below this many standard deviations of a training's noise hardly matters. In
simulated searches about half of the expected gain comes true; see `benchmarks/stopping.py`."""


def matters(study: optuna.Study) -> bool:
    """Return whether further trials may find a recipe that is better by more than a little.

    A regression of the scores on the chosen options, with its prior variances fitted (empirical Bayes),
    says how much the sampler's next proposals may gain, which change a few choices of the best trial.
    That model does not know the tricks' numbers, so the best trial must also be one of the first half.
    """
    told = [t for t in trials_of(study) if t.state in ENDED or is_paused(t)]
    best = best_of(told, mode_of(study.direction))
    if best is None or len(told) < max(LEAST, 2 * sum(trial.number < best.number for trial in told)):
        return True
    latest = [best, *(trial for trial in told[-LATEST:] if trial is not best)]
    gain = expected_gain(latest, study.direction)
    return gain is None or gain >= LITTLE


def expected_gain(trials: Sequence[FrozenTrial], direction: StudyDirection) -> float | None:
    """Return what the sampler's next proposals may gain, in standard deviations of a training's noise.

    Args:
        trials: finished and paused trials, the best one first.
        direction: direction of better scores.

    Returns:
        The gain over the first trial, the mean over draws; None if there is nothing to choose.
    """
    options = options_of(trials)
    choices = [choice for choice in _choices(trials[0], options) if len(choice.rivals) > 1]
    if not choices:
        return None
    chosen = features_of(trials, options, {})[:, :-1]  # the last column is for expected effects
    found = max(
        (_fit(chosen, quantiles_of(trials, direction), *pair) for pair in product(EFFECTS, NOISES)),
        key=lambda fit: fit.likelihood,
    )
    luck = np.random.default_rng(len(trials)).normal(size=(len(found.mean), DRAWS))
    effects = found.mean[:, None] + np.linalg.solve(found.factor.T, luck)
    gains = [effects[choice.rivals].max(0) - effects[choice.own] for choice in choices]
    return float(np.sort(gains, axis=0)[-CHANGED:].sum(0).mean() / found.noise**0.5)


class _Choice(NamedTuple):
    own: int
    """Place of the chosen option among all options."""
    rivals: list[int]
    """Places of all options of the choice."""


def _choices(trial: FrozenTrial, options: Sequence[Option]) -> list[_Choice]:
    """Return the choices that a trial made."""
    places: dict[str, list[int]] = {}
    for place, (name, _) in enumerate(options):
        places.setdefault(name, []).append(place)
    own = {
        name: place for place, (name, choice) in enumerate(options) if trial.params.get(name) == choice
    }
    return [_Choice(own[name], rivals) for name, rivals in places.items() if name in own]


class _Fit(NamedTuple):
    likelihood: float
    mean: Vector
    factor: Vector
    """Cholesky factor of the posterior's precision."""
    noise: float


def _fit(chosen: Vector, targets: Vector, effect: float, noise: float) -> _Fit:
    """Return the regression with given prior variances, and the likelihood of the scores."""
    count, size = chosen.shape
    spread = np.array([effect] * (size - 1) + [LEVEL])
    factor = np.linalg.cholesky(np.diag(1 / spread) + chosen.T @ chosen / noise)
    half = np.linalg.solve(factor, chosen.T @ targets / noise)
    mean = np.linalg.solve(factor.T, half)
    volume = 2 * np.log(np.diag(factor)).sum() + np.log(spread).sum() + count * np.log(noise)
    missed = targets @ (targets - chosen @ mean) / noise
    return _Fit(-0.5 * float(missed + volume), mean, factor, noise)
