"""What follows the last trial: test scores, the registered model, the study's description."""

from collections.abc import Mapping
from dataclasses import replace

from optuna.trial import FrozenTrial

from lightning_tricks.errors import ENDING, one_line
from lightning_tricks.markdown import escaped
from lightning_tricks.report.summary import Summary, summarize, summarize_verdict
from lightning_tricks.search import keys, outcomes
from lightning_tricks.search.archive import BEST
from lightning_tricks.search.dashboard import note
from lightning_tricks.search.study_state import ablation_of, remember_champion
from lightning_tricks.selection.result import Verdict
from lightning_tricks.study.session import Session
from lightning_tricks.verdict import models
from lightning_tricks.verdict.reporting import commands_of, keep_report
from lightning_tricks.verdict.trained import Trained


def conclude(session: Session, verdict: Verdict | None = None) -> Summary:
    """Register the best model, describe the study and return what it found.

    Args:
        session: of a study that was searched.
        verdict: which has registered its champion already; without one the best trial is registered.

    Raises:
        InputError: if all trials failed.
    """
    session.history.check(least=1)
    conclusion = _Conclusion(session)
    return conclusion.write() if verdict is None else conclusion.write_verdict(verdict)


class _Conclusion:
    """Test and register the best trial, and describe the study.

    Args:
        session: of the study.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.study, self.task = session, session.study, session.task
        self.history, self.archive, self.progress = session.history, session.archive, session.progress
        self.trained = Trained(session)

    def write_verdict(self, verdict: Verdict) -> Summary:
        """Return what the study found by its verdict, once the archive holds it."""
        self.archive.place(self.history)
        summary = summarize_verdict(self.study, self.task, verdict, ablation_of(self.study))
        if self.archive.flush(5):
            row = verdict.rows.get(verdict.champion)
            means = {} if row is None else {"champion": row.validation, "champion_test": row.test}
            means |= {} if verdict.gain is None else {"gain": verdict.gain.interval}
            values = {name: found.mean for name, found in means.items() if found is not None}
            links = self.archive.links(self.trained.study_state)
            self._describe(summary, values, {}, links, verdict.label)
            keep_report(self.session, verdict)
        return replace(summary, look=self.archive.look)

    def write(self) -> Summary:
        """Return what the study found, once the archive holds it."""
        best = self.history.best
        for trial in outcomes.compared(list(self.history), best):
            self._test(trial)
        if best is None:
            self.progress.warn("no trial used its whole budget, so there is no best one")
        elif self.archive.flush(60):
            self._register(best)
        self.archive.place(self.history)
        summary = summarize(self.study, self.task)
        if self.archive.flush(5):
            values = {} if best is None else {"best": best.value or 0.0}
            scores = {} if best is None else self.trained.study_state.tests.get(best.number, {})
            self._describe(summary, values, scores)
        return replace(summary, look=self.archive.look)

    def _test(self, trial: FrozenTrial) -> None:
        """Look at the test split with a trial's model, or say why that cannot be."""
        try:
            self.trained.test(trial)
        except (Exception, *ENDING) as error:  # of the user's code: the study stands
            self.progress.warn(
                f"trial {trial.number} has no test score: {type(error).__name__}: {one_line(error)}"
            )

    def _register(self, best: FrozenTrial) -> None:
        """Register the best trial as such, unless it is: without a verdict it is no champion."""
        held, number = self.study.user_attrs.get(keys.CHAMPION), best.number
        run_id = self.archive.run_of(number)
        registered = held and held["trial"] == number and held["run_id"] == run_id
        try:
            if held and registered and self.archive.holds({held["alias"]: held["version"]}):
                return
            module, study_state = self.trained.restore(best), self.trained.study_state
            recipe = self.task.tricks.parse(self.history.recipe_of(best))
            found = models.register(self.task, {number: module}, recipe, self.archive, number, BEST)
            what = models.of_trial(self.study.study_name, number, study_state)
            models.describe(found, self.study.study_name, recipe, study_state, what)
        except Exception as error:  # of the export or MLflow: the study stands
            self.progress.warn(
                f"the best model was not registered: {type(error).__name__}: {one_line(error)}"
            )
            self.archive.whole = False
            return
        champion = outcomes.Champion(alias=BEST, trial=number, run_id=run_id, version=found.version)
        remember_champion(self.study, champion)

    def _describe(
        self,
        summary: Summary,
        values: Mapping[str, float],
        scores: Mapping[str, float],
        links: str = "",
        label: str = "",
    ) -> None:
        commands = ", then ".join(f"`{one}`" for one in commands_of(self.study))
        text = (
            f"{escaped(summary.answer)} {links}\n\n{summary.markdown()}\n\n"
            f"Study of the training tricks of `{self.task.name}`: {escaped(self.task.monitor)} of "
            f"trials of up to {self.task.epochs} epochs. Reproduce it with {commands}."
        ).strip()
        self.archive.describe(text, values, scores, label)
        note(self.study, text)
