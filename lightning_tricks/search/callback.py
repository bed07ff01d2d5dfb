"""Pruning for your own Optuna objective with your own Lightning Trainer."""

from typing import Any

import optuna
import pytorch_lightning as pl

from lightning_tricks.scores import monitored


class PruningCallback(pl.Callback):
    """Report a metric to an Optuna trial at each validation; end the fit if Optuna prunes the trial.

    Training ends properly: the Trainer writes checkpoints and runs `on_train_end`. Then `Trainer.fit`
    raises `optuna.TrialPruned`; an objective should not catch it. If an epoch has several validations,
    each is reported as its own step.

    Args:
        trial: the trial of the objective.
        monitor: the name of a logged metric, such as `val/accuracy`.

    Raises:
        InputError: from `fit`, if no metric of this name is logged.
    """

    def __init__(self, trial: optuna.Trial, monitor: str) -> None:
        self.trial, self.monitor = trial, monitor
        self.validations = 0
        self.pruned = False

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint: a resumed fit continues the step count."""
        return {"validations": self.validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
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
        if trainer.strategy.broadcast(prune):  # all processes stop together
            self.pruned = trainer.should_stop = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del trainer, pl_module
        if self.pruned:
            raise optuna.TrialPruned(f"pruned after {self.validations} validations of {self.monitor}")
