"""Pruning in anyone's own Optuna objective with anyone's own Lightning Trainer."""

from typing import Any

import optuna
import pytorch_lightning as pl

from lightning_tricks.scores import monitored


class PruningCallback(pl.Callback):
    """Report a metric to an Optuna trial at each validation; end the fit when it is to be pruned.

    Training ends in order: checkpoints are written and `on_train_end` runs, and only then does
    `Trainer.fit` raise `optuna.TrialPruned`, which is what an objective should let pass. Several
    validations in an epoch are reported each under its own step.

    Args:
        trial: the trial of the objective.
        monitor: the name of a logged metric, such as `val/accuracy`.

    Raises:
        InputError: out of `fit`, if no metric of this name is logged.
    """

    def __init__(self, trial: optuna.Trial, monitor: str) -> None:
        self.trial, self.monitor = trial, monitor
        self.validations = 0
        self.pruned = False

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: a fit that goes on from it goes on counting."""
        return {"validations": self.validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.validations = state_dict["validations"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del pl_module
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        prune = False
        step, self.validations = self.validations, self.validations + 1  # before a checkpoint is written
        if trainer.is_global_zero:
            self.trial.report(monitored(trainer, self.monitor), step)
            prune = self.trial.should_prune()
        if trainer.strategy.broadcast(prune):  # all processes stop together, or none
            self.pruned = trainer.should_stop = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del trainer, pl_module
        if self.pruned:
            raise optuna.TrialPruned(f"pruned after {self.validations} validations of {self.monitor}")
