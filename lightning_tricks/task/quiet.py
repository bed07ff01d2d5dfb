"""Trainers that write nothing and print nothing."""

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.loggers.logger import DummyLogger

from lightning_tricks.flavors import FLAVORS, Flavor, adapt
from lightning_tricks.module.lightning_internals import reading_entry_points_once

_SILENT: Mapping[str, Any] = {
    "devices": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


def silent_trainer(
    flavor: Flavor,
    *,
    callbacks: Sequence[pl.Callback] = (),
    plugins: Sequence[Any] = (),
    **settings: Any,
) -> pl.Trainer:
    """Return a Trainer that trains in this process, whatever environment variables a launcher set.

    Its logger drops everything, but exists because modules call `self.logger.experiment`.

    Args:
        flavor: the Trainer's flavor; callbacks and plugins are adapted to it.
        callbacks: the Trainer's callbacks.
        plugins: the Trainer's plugins, in addition to the environment.
        settings: further arguments, which override the silent ones.

    Raises:
        MisconfigurationException: if they ask for a device that does not exist.
    """
    package = flavor.package
    own = {
        "logger": flavor.counterpart(DummyLogger)(),
        "plugins": [adapt(plugin, flavor) for plugin in (LightningEnvironment(), *plugins)],
        "callbacks": [adapt(callback, flavor) for callback in callbacks],
        "enable_checkpointing": any(isinstance(c, package.callbacks.Checkpoint) for c in callbacks),
    }
    with reading_entry_points_once(flavor.fabric):
        trainer: pl.Trainer = package.Trainer(**{**_SILENT, **own, **settings})
    return trainer


@contextmanager
def _without_autologging() -> Iterator[None]:
    """Stop the user's `mlflow.autolog()`, if any, from recording every training."""
    loaded = sys.modules.get("mlflow.utils.autologging_utils")
    integrations: Mapping[str, dict[str, Any]] = getattr(loaded, "AUTOLOGGING_INTEGRATIONS", {})
    before = {name: dict(settings) for name, settings in integrations.items()}
    for settings in integrations.values():
        settings["disable"] = True
    try:
        yield
    finally:
        for name, settings in before.items():
            integrations[name].clear()
            integrations[name].update(settings)


class _ErrorsOnly(logging.Filter):
    """Drops all records below an error."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR


@contextmanager
def quiet() -> Iterator[None]:
    """Stop Lightning from printing about each fit, and MLflow from recording it."""
    names = [
        name
        for flavor in FLAVORS
        for name in (
            f"{flavor.trainer}.utilities.rank_zero",
            f"{flavor.fabric}.utilities.distributed",
            f"{flavor.trainer}.trainer.connectors.checkpoint_connector",
            f"{flavor.trainer}.trainer.connectors.signal_connector",
        )
    ]
    # A filter, because a new level makes `logging` empty the caches of all loggers: milliseconds a fit.
    filters = {logging.getLogger(name): _ErrorsOnly() for name in names}
    for logger, errors_only in filters.items():
        logger.addFilter(errors_only)
    try:
        with warnings.catch_warnings():
            # Advice about workers and devices, and torch's own deprecations inside Lightning.
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning\.pytorch)\..*")
            with _without_autologging():
                yield
    finally:
        for logger, errors_only in filters.items():
            logger.removeFilter(errors_only)
