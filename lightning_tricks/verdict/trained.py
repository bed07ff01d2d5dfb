"""The models of a study's finished trials: brought back, and tested once."""

import pytorch_lightning as pl
from optuna.trial import FrozenTrial

from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.study_state import StudyState, remember_test
from lightning_tricks.study.session import Session
from lightning_tricks.verdict import models


class Trained:
    """What can be done with the trials of one study that used their whole budget.

    Args:
        session: of the study, or of a part of it.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    @property
    def study_state(self) -> StudyState:
        """Where the study stands now."""
        return StudyState.read(self.session.study, self.session.task)

    def restore(self, trial: FrozenTrial) -> pl.LightningModule:
        """Return the module of a trial, as it was scored."""
        own, outcome = self.session, Outcome.read(trial)
        assert outcome is not None  # it used its whole budget
        return models.restore(own.task, outcome, own.folder, trial.number, own.progress.print)

    def test(self, trial: FrozenTrial) -> None:
        """Look at the test split with a trial's model, unless that was done before."""
        if trial.number not in self.study_state.tests:
            metrics = models.test(self.session.task, self.restore(trial))
            remember_test(self.session.study, trial.number, metrics)
