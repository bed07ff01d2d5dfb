"""Seeds that follow from others, so that a study is reproducible trial by trial."""

import zlib

import numpy as np


def derive(seed: int, number: int, purpose: str = "trial") -> int:
    """Return the seed of a trial: from the study's seed, the trial's number and its purpose."""
    sequence = np.random.SeedSequence([seed, number, zlib.crc32(purpose.encode())])
    return int(sequence.generate_state(1)[0])
