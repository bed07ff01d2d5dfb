"""Seeds derived from other seeds, so that a study is reproducible trial by trial."""

import zlib

import numpy as np


def derive(seed: int, number: int, purpose: str = "trial") -> int:
    """Return the seed of a trial, derived from the study's seed, the trial's number and a purpose."""
    sequence = np.random.SeedSequence([seed, number, zlib.crc32(purpose.encode())])
    return int(sequence.generate_state(1)[0])
