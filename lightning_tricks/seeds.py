"""Seeds derived from other seeds, so that a study is reproducible trial by trial."""

import random
import zlib

import numpy as np
import torch


def derive(seed: int, number: int, purpose: str = "trial") -> int:
    """Return the seed of a trial, derived from the study's seed, the trial's number and a purpose."""
    sequence = np.random.SeedSequence([seed, number, zlib.crc32(purpose.encode())])
    return int(sequence.generate_state(1)[0])


def seed_generators(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch.

    It gives the numbers of Lightning's `seed_everything`. Without an accelerator it is faster:
    `torch.manual_seed` would note a traceback for each kind of accelerator, which takes milliseconds.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # users draw from it
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
