"""What Lightning has no public call for: the only file that uses names that it may change."""

import pytorch_lightning as pl

CURRENT_HOOK = "_current_fx_name"
"""Lightning sets this attribute of a module twice for each hook, some fifty times a step."""


def begin_batches_anew(trainer: pl.Trainer) -> None:
    """Have the batches of an epoch drawn again, which Lightning made before its start."""
    iter(trainer.fit_loop._data_fetcher or ())
