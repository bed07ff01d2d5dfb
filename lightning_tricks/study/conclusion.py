"""What follows the last trial: test scores, the champion's registration, the study's description."""

from collections.abc import Mapping
from dataclasses import replace

import optuna
from optuna.trial import FrozenTrial

from lightning_tricks.errors import one_line
from lightning_tricks.markdown import escaped
from lightning_tricks.report.page import Report
from lightning_tricks.search import outcomes
from lightning_tricks.search.dashboard import keep_report, note
from lightning_tricks.search.optuna_internals import storage_of
from lightning_tricks.search.standing import Standing, ablation_of, remember_champion
from lightning_tricks.selection.result import Verdict
from lightning_tricks.study import models
from lightning_tricks.study.folder import StudyFolder
from lightning_tricks.study.history import History
from lightning_tricks.study.progress import Progress
from lightning_tricks.study.summary import Summary, summarize, summarize_verdict
from lightning_tricks.study.trained import Trained
from lightning_tricks.task.task import Task
from lightning_tricks.tracking import trial_updates, view
from lightning_tricks.tracking.format import REPORT, Metrics, metrics_at, milliseconds, own_metrics
from lightning_tricks.tracking.registry import BEST
from lightning_tricks.tracking.tracker import Tracker


def report_of(study: optuna.Study, task: Task, verdict: Verdict) -> Report:
    """Return the report of a study that has a verdict."""
    reruns = [
        trial
        for part in outcomes.PARTS
        if outcomes.kept(part) in study.user_attrs
        for trial in optuna.load_study(
            study_name=outcomes.part_name(study.study_name, part), storage=storage_of(study)
        ).get_trials(deepcopy=False)
    ]
    return Report(study, reruns, task, verdict, commands_of(study), ablation_of(study))


def commands_of(study: optuna.Study) -> list[str]:
    """Return the commands that made a study, in their order."""
    commands: list[str] = study.user_attrs.get(outcomes.COMMANDS, [trial_updates.command()])
    return commands


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
        self.tracker, self.progress = tracker, progress
        self.trained = Trained(study, task, folder, tracker, progress)
        self.recorded = True
        """Whether MLflow took all that it was told here."""

    def write_verdict(self, verdict: Verdict) -> Summary:
        """Return what the study found by its verdict, once MLflow knows it."""
        placed = {verdict.trial, verdict.rival, *self.trained.standing.former} - {None}
        self.trained.tell(trial for trial in self.history if trial.number in placed)
        summary = summarize_verdict(self.study, self.task, verdict, ablation_of(self.study))
        if self.tracker.flush(timeout=5):
            row = verdict.rows.get(verdict.champion)
            means = {} if row is None else {"champion": row.validation, "champion_test": row.test}
            means |= {} if verdict.gain is None else {"gain": verdict.gain.interval}
            values = {name: found.mean for name, found in means.items() if found is not None}
            metrics = own_metrics(0, values, milliseconds())
            links, tags = self._where_to_look(self.trained.standing), {"verdict": verdict.label}
            self._describe(summary, metrics, f"{escaped(verdict.headline())} {links}", tags)
            self.recorded &= self.tracker.attempt(lambda: self._log_report(verdict))
        return replace(summary, look=view.how_to_look(self.tracker.uri, self.tracker.link))

    def _where_to_look(self, standing: Standing) -> str:
        """Lead from the study's run to what its verdict made."""
        pages = {"The report": self.tracker.page_of(REPORT)}
        if standing.version is not None:
            pages["the champion's model"] = view.model_page(standing.study, standing.version)
        for part, run_id in self.study.user_attrs.get(outcomes.PART_RUNS, {}).items():
            pages[f"the runs of the {part}"] = view.run_page(run_id)
        return ", ".join(f"[{name}]({page})" for name, page in pages.items())

    def _log_report(self, verdict: Verdict) -> None:
        report = report_of(self.study, self.task, verdict)
        page = report.html()  # which draws all figures
        keep_report(self.study, self.trained.folder.path, page)
        files = {REPORT: page, "report.md": report.markdown(), **report.images()}
        self.tracker.log_report(files)

    def write(self) -> Summary:
        """Return what the study found, once MLflow knows it."""
        best = self.history.best
        compared = outcomes.compared(list(self.history), best)
        for trial in compared:
            self._test(trial)
        if best is None:
            self.progress.warn("no trial used its whole budget, so there is no best one")
        elif self.tracker.flush(timeout=5 if self.tracker.writer.down else 60):
            self._register(best)
        standing = self.trained.standing
        self.trained.tell([*compared, *(self.history[number] for number in standing.former)])
        summary = summarize(self.study, self.task)
        if self.tracker.flush(timeout=5):
            now = milliseconds()
            metrics = [] if best is None else own_metrics(0, {"best": best.value or 0.0}, now)
            metrics += [] if best is None else metrics_at(0, standing.tests.get(best.number, {}), now)
            self._describe(summary, metrics)
        return replace(summary, look=view.how_to_look(self.tracker.uri, self.tracker.link))

    def _test(self, trial: FrozenTrial) -> None:
        """Look at the test split with a trial's model, or say why that cannot be."""
        try:
            self.trained.test(trial)
        except Exception as error:  # of the user's code: the study stands
            self.progress.warn(
                f"trial {trial.number} has no test score: {type(error).__name__}: {one_line(error)}"
            )

    def _register(self, best: FrozenTrial) -> None:
        """Register the best trial as such, unless it is: without a verdict it is no champion."""
        held = self.study.user_attrs.get(outcomes.CHAMPION)
        run_id = self.tracker.run_of(best.number)
        registered = held and held["trial"] == best.number and held["run_id"] == run_id
        try:
            if held and registered and self.tracker.holds({held["alias"]: held["version"]}):
                return
            module, standing = self.trained.restore(best), self.trained.standing
            record = self.task.tricks.parse(self.history.record_of(best))
            number = best.number
            of = {number: module}
            found = models.register(self.task, of, record, self.tracker, number, BEST)
            what = models.of_trial(self.tracker.name, number, standing)
            models.describe(found, self.tracker, record, standing, what)
        except Exception as error:  # of the export or MLflow: the study stands
            self.progress.warn(
                f"the best model was not registered: {type(error).__name__}: {one_line(error)}"
            )
            self.recorded = False
            return
        champion = outcomes.Champion(alias=BEST, trial=number, run_id=run_id, version=found.version)
        remember_champion(self.study, champion)

    def _describe(
        self,
        summary: Summary,
        metrics: Metrics,
        answer: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        text = (
            f"{answer}\n\nStudy of the training tricks of `{self.task.name}`: "
            f"{escaped(self.task.monitor)} of trials of up to {self.task.epochs} epochs.\n\n"
            f"{summary.markdown()}\n\n"
            f"Reproduce it with {', then '.join(f'`{command}`' for command in commands_of(self.study))}."
        )
        self.recorded &= self.tracker.attempt(lambda: self.tracker.describe(text.strip(), metrics, tags))
        note(self.study, text.strip())
