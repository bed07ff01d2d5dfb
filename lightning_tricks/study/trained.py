"""The models of a study's finished trials: brought back, tested once, and shown where they stand."""

from collections.abc import Iterable

import optuna
import pytorch_lightning as pl
from optuna.trial import FrozenTrial

from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.standing import Standing, remember_test
from lightning_tricks.study import models
from lightning_tricks.study.folder import StudyFolder
from lightning_tricks.study.progress import Progress
from lightning_tricks.task.task import Task
from lightning_tricks.tracking import trial_updates
from lightning_tricks.tracking.format import milliseconds
from lightning_tricks.tracking.tracker import Tracker


class Trained:
    """What can be done with the trials of one study that used their whole budget.

    Args:
        study: in Optuna.
        task: of the study.
        folder: where weights are kept.
        tracker: of the study.
        progress: is told of weights that are not there.
    """

    def __init__(
        self,
        study: optuna.Study,
        task: Task,
        folder: StudyFolder,
        tracker: Tracker,
        progress: Progress,
    ) -> None:
        self.study, self.task, self.folder = study, task, folder
        self.tracker, self.progress = tracker, progress

    @property
    def standing(self) -> Standing:
        """Where the study stands now."""
        return Standing.read(self.study, self.task)

    def restore(self, trial: FrozenTrial) -> pl.LightningModule:
        """Return the module of a trial, as it was scored."""
        outcome = _outcome(trial)
        return models.restore(self.task, outcome, self.folder, trial.number, self.progress.print)

    def test(self, trial: FrozenTrial) -> None:
        """Look at the test split with a trial's model, unless that was done before."""
        if trial.number not in self.standing.tests:
            metrics = models.test(self.task, self.restore(trial))
            remember_test(self.study, trial.number, metrics)

    def tell(self, trials: Iterable[FrozenTrial]) -> None:
        """Tell MLflow anew where trials stand: as what, and with which test scores."""
        standing = self.standing
        for trial in trials:
            update = trial_updates.placed(self.task, trial, _outcome(trial), standing, milliseconds())
            self.tracker.update(trial.number, update)


def _outcome(trial: FrozenTrial) -> Outcome:
    outcome = Outcome.read(trial)
    assert outcome is not None  # it used its whole budget
    return outcome
