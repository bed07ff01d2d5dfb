"""Seeds: the same numbers as Lightning's own, and others for each trial and purpose."""

import random

import numpy as np
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as some

from lightning_tricks.seeds import derive, seed_generators


def drawn():
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002  # as users do


@given(some.integers(0, 2**32 - 1))
def test_generators_are_seeded_as_lightning_seeds_them(seed):
    pl.seed_everything(seed, verbose=False)
    expected = drawn()
    seed_generators(seed)
    assert drawn() == expected


@given(some.integers(0, 2**32 - 1), some.integers(0, 10**6))
def test_a_seed_can_seed_all_generators_and_depends_on_everything(seed, number):
    found = {derive(seed, number), derive(seed, number + 1), derive(seed, number, "repeat")}
    assert len(found) == 3
    assert all(0 <= one < 2**32 for one in found)
