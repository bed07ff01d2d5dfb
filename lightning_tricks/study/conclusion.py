"""What follows the last trial: test scores, the champion's registration, the study's description."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import optuna
from optuna.trial import FrozenTrial

from lightning_tricks.errors import one_line
from lightning_tricks.module.hooks import TricksHooks
from lightning_tricks.report.page import Report
from lightning_tricks.search import outcomes
from lightning_tricks.search.optuna_internals import storage_of
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.standing import Standing, remember_champion, remember_test
from lightning_tricks.selection.result import Verdict
from lightning_tricks.study import models
from lightning_tricks.study.folder import StudyFolder
from lightning_tricks.study.history import History
from lightning_tricks.study.progress import Progress
from lightning_tricks.study.summary import Summary, summarize, summarize_verdict
from lightning_tricks.task.task import Task
from lightning_tricks.tracking import trial_updates
from lightning_tricks.tracking.format import milliseconds
from lightning_tricks.tracking.tracker import Tracker
from lightning_tricks.tracking.view import how_to_look


def report_of(study: optuna.Study, task: Task, verdict: Verdict) -> Report:
    """Return the report of a study that has a verdict."""
    name = outcomes.verdict_name(study.study_name)
    reruns = optuna.load_study(study_name=name, storage=storage_of(study))
    command = study.user_attrs.get(outcomes.COMMAND, trial_updates.command())
    return Report(study, reruns.get_trials(deepcopy=False), task, verdict, command)


class Conclusion:
    """Test and register the best trial, and describe the study in MLflow."""

    def __init__(
        self,
        study: optuna.Study,
        task: Task,
        history: History,
        tracker: Tracker,
        folder: StudyFolder,
        progress: Progress,
    ) -> None:
        self.study, self.task, self.history = study, task, history
        self.tracker, self.folder, self.progress = tracker, folder, progress
        self.recorded = True
        """Whether MLflow took all that it was told here."""

    def write_verdict(self, verdict: Verdict) -> Summary:
        """Return what the study found by its verdict, once MLflow knows it."""
        best, standing = self.history[verdict.trial], Standing.read(self.study, self.task)
        former = (self.history[number] for number in standing.former)
        self._update_roles([best, *former], standing)
        summary = summarize_verdict(self.study, self.task, verdict)
        if self.tracker.flush(timeout=5):
            row = verdict.rows.get("champion")
            metrics = {} if row is None else {"champion": row.validation.mean}
            metrics |= {} if row is None or row.test is None else {"champion_test": row.test.mean}
            self._describe(summary, metrics)
            self.recorded &= self.tracker.attempt(lambda: self._log_report(verdict))
        return replace(summary, look=how_to_look(self.tracker.uri, self.tracker.link))

    def _log_report(self, verdict: Verdict) -> None:
        report = report_of(self.study, self.task, verdict)
        self.tracker.log_report({"report.html": report.html(), "report.md": report.markdown()})

    def write(self) -> Summary:
        """Return what the study found, once MLflow knows it."""
        best = self.history.best
        compared = outcomes.compared(list(self.history), best)
        for trial in compared:
            self._test(trial)
        if best is None:
            self.progress.warn("no trial used its whole budget, so there is no champion")
        elif self.tracker.flush(timeout=5 if self.tracker.writer.down else 60):
            self._register(best)
        standing = Standing.read(self.study, self.task)
        self._update_roles([*compared, *(self.history[n] for n in standing.former)], standing)
        summary = summarize(self.study, self.task)
        if self.tracker.flush(timeout=5):
            metrics = {} if best is None else {"best": best.value or 0.0}
            metrics |= {} if best is None else standing.tests.get(best.number, {})
            self._describe(summary, metrics)
        return replace(summary, look=how_to_look(self.tracker.uri, self.tracker.link))

    def _test(self, trial: FrozenTrial) -> None:
        """Look at the test split with a trial's model, unless that was done before."""
        if trial.number in Standing.read(self.study, self.task).tests:
            return
        try:
            metrics = models.test(self.task, self._restore(trial))
            remember_test(self.study, trial.number, metrics)
        except Exception as error:  # of the user's code: the study stands
            self.progress.warn(
                f"trial {trial.number} has no test score: {type(error).__name__}: {one_line(error)}"
            )

    def _restore(self, trial: FrozenTrial) -> TricksHooks:
        outcome = Outcome.read(trial)
        assert outcome is not None  # it used its whole budget
        return models.restore(self.task, outcome, self.folder, trial.number, self.progress.print)

    def _register(self, best: FrozenTrial) -> None:
        """Register the best trial as the champion, unless it is."""
        held = self.study.user_attrs.get(outcomes.CHAMPION)
        run_id = self.tracker.run_of(best.number)
        registered = held and held["trial"] == best.number and held["run_id"] == run_id
        if held and registered and self.tracker.champion() == held["version"]:
            return
        try:
            module = self._restore(best)
            standing = Standing.read(self.study, self.task)
            version = models.register(self.task, module, self.tracker, best.number, standing)
        except Exception as error:  # of the export or MLflow: the study stands
            self.progress.warn(f"no champion was registered: {type(error).__name__}: {one_line(error)}")
            self.recorded &= self.tracker.answers()
            return
        remember_champion(self.study, best.number, run_id, version)

    def _update_roles(self, trials: Iterable[FrozenTrial], standing: Standing) -> None:
        """Tell MLflow anew of trials that are, or were, something to the study."""
        for trial in trials:
            outcome = Outcome.read(trial)
            assert outcome is not None  # it used its whole budget
            update = trial_updates.placed(self.task, trial, outcome, standing, milliseconds())
            self.tracker.update(trial.number, update)

    def _describe(self, summary: Summary, metrics: Mapping[str, float]) -> None:
        text = (
            f"Study of the training tricks of `{self.task.name}`: {self.task.monitor} of trials of up "
            f"to {self.task.epochs} epochs.\n\n{summary.markdown()}\n\n"
            f"Reproduce it with `{trial_updates.command()}`."
        )
        self.recorded &= self.tracker.attempt(lambda: self.tracker.describe(text, metrics))
