"""A Trainer that writes nothing and prints nothing."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

SILENT: Mapping[str, Any] = {
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
"""Its arguments."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning from printing its several lines about each fit."""
    # Where the package `lightning` is installed too, loggers go by its names.
    names = (
        *(f"{trainer}.utilities.rank_zero" for trainer in ("pytorch_lightning", "lightning.pytorch")),
        *(f"{fabric}.utilities.distributed" for fabric in ("lightning_fabric", "lightning.fabric")),
        "pytorch_lightning.trainer.connectors.checkpoint_connector",
        "pytorch_lightning.trainer.connectors.signal_connector",
    )
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Advice about workers and devices, and torch's own deprecations inside Lightning.
            warnings.filterwarnings("ignore", module=r"pytorch_lightning\..*")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
