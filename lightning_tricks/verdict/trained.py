"""The models of a study's finished trials: restored, and tested once."""

import pytorch_lightning as pl
from optuna.trial import FrozenTrial

from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.study_state import StudyState, remember_test
from lightning_tricks.study.session import Session
from lightning_tricks.verdict import models


class Trained:
    """Restores and tests the models of a study's complete trials.

    Args:
        session: the session of the study, or of a part of it.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    @property
    def study_state(self) -> StudyState:
        """The study's current state."""
        return StudyState.read(self.session.study, self.session.task)

    def restore(self, trial: FrozenTrial) -> pl.LightningModule:
        """Return a trial's module, with the weights that were scored."""
        own, outcome = self.session, Outcome.read(trial)
        assert outcome is not None  # the trial is complete
        return models.restore(own.task, outcome, own.folder, trial.number, own.progress.print)

    def test(self, trial: FrozenTrial) -> None:
        """Test a trial's model, unless that was done before."""
        if trial.number not in self.study_state.tests:
            metrics = models.test(self.session.task, self.restore(trial))
            remember_test(self.session.study, trial.number, metrics)
