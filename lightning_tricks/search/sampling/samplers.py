"""The samplers that scripts offer, by name."""

from collections.abc import Callable, Mapping
from functools import partial

import optuna
from optuna.samplers import BaseSampler, TPESampler

from lightning_tricks.search.sampling.seeded import SeededSampler
from lightning_tricks.search.sampling.trick_sampler import TrickSampler


def _gp(seed: int) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=seed)


def _random(seed: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(seed=seed)


SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "tricks": TrickSampler,
    "tpe": partial(SeededSampler, _tpe),
    "random": partial(SeededSampler, _random),
    "gp": partial(SeededSampler, _gp),
}
