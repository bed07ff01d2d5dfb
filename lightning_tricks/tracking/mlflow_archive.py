"""The archive of a study in MLflow."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from lightning_tricks.markdown import escaped
from lightning_tricks.process import command
from lightning_tricks.search.archive import REPORT, Archive, Models
from lightning_tricks.search.keys import MLFLOW_RUN, PART_RUNS, REPORTED, UNWRITTEN
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.studies import begun, finished
from lightning_tricks.search.study_state import StudyState, known_runs
from lightning_tricks.space.space import Space
from lightning_tricks.task.task import Task
from lightning_tricks.tracking import agreement, trial_updates, view
from lightning_tricks.tracking.format import metrics_at, milliseconds, own_metrics
from lightning_tricks.tracking.run_update import Status, Update
from lightning_tricks.tracking.tracker import Tracker
from lightning_tricks.trial.result import Epoch
from lightning_tricks.tricks.recipe import Tricks


class MLflowArchive(Archive):
    """The archive of a study, or of a part, in MLflow. Opening it writes the trials missing there.

    Args:
        tracker: writes the study to MLflow.
        study: the study.
        task: its task.
        space: the search's space, for the columns of the table of trials; None for a part.
        repair: whether to rewrite what differs from Optuna, and remove what an earlier write left.
        search_run: id of the search's run, to which a part's run links; empty for a search.

    Raises:
        InputError: if MLflow cannot be written to.
    """

    def __init__(
        self,
        tracker: Tracker,
        study: optuna.Study,
        task: Task,
        space: Space[Any] | None = None,
        *,
        repair: bool = False,
        search_run: str = "",
    ) -> None:
        self.search_run = search_run
        self.tracker, self.study, self.task, self.repair = tracker, study, task, repair
        self.study_state = StudyState.read(study, task)
        """The state last written; it changes only after the last trial."""
        wrong = agreement.wrong(study, task, tracker.store) if repair else ()
        self._open()
        if space is not None:
            columns = view.columns(task, space)
            tracker.attempt(lambda: tracker.save_view(columns, task))
        whole, trials = partial(trial_updates.whole, task, study_state=self.study_state), finished(study)
        written = [*trials, *begun(study)]
        held = tracker.reconcile({t.number: partial(whole, t) for t in written}, wrong)
        for trial in trials:  # a program that died may have updated only some
            run = held.get(trial.number)
            if run is not None and not (stands := self._stands(trial)).is_held_by(run):
                tracker.update(trial.number, stands)
        if repair:
            tracker.sweep(known_runs(study))

    def _open(self) -> None:
        """Open the study's run, and store its id with the study."""
        known, kind, made_by = self.study.user_attrs.get(MLFLOW_RUN), self.tracker.kind, command()
        tags = {"study": self.tracker.name, "command": made_by, "tricks": kind, "role": kind}
        if (run_id := self.tracker.open(known, tags)) != known:
            self.study.set_user_attr(MLFLOW_RUN, run_id)

    @property
    def look(self) -> str:
        report = self.tracker.page_of(REPORT) if REPORTED in self.study.user_attrs else ""
        return view.how_to_look(self.tracker.uri, self.tracker.link, report)

    @property
    def missing(self) -> str:
        if self.whole:
            return ""
        writer, uri = self.tracker.writer, self.tracker.uri
        if why := next(iter(writer.refused.values()), ""):
            return f"MLflow at {uri} refuses some of the study's data, which Optuna still holds: {why}"
        left = f" ({writer.unwritten} trials are missing or partial)" if writer.unwritten else ""
        return (
            f"MLflow at {uri} is incomplete{left}, but Optuna holds everything: once MLflow is up, run "
            "the same command again"
        )

    @contextmanager
    def opened(self) -> Iterator["MLflowArchive"]:
        """Close the study's run at the end."""
        status: Status = "KILLED"
        try:
            yield self
            status = "FINISHED"
        finally:
            self.whole &= self.tracker.close(status)

    @contextmanager
    def beside(self, part: str, study: optuna.Study, task: Task) -> Iterator["MLflowArchive"]:
        own = MLflowArchive(
            self.tracker.for_part(part),
            study,
            task,
            repair=self.repair,
            search_run=self.tracker.writer.run_id,
        )
        runs = self.study.user_attrs.get(PART_RUNS, {})
        self.study.set_user_attr(PART_RUNS, {**runs, part: own.tracker.writer.run_id})
        others = [one for one in self.study.user_attrs.get(UNWRITTEN, []) if one != part]
        self.study.set_user_attr(UNWRITTEN, [*others, part])
        try:
            with own.opened():
                yield own
        finally:
            self.whole &= own.whole
        if own.whole:
            self.study.set_user_attr(UNWRITTEN, others)

    def began(self, number: int, tricks: Tricks, seed: int) -> None:
        update = trial_updates.began(self.task, tricks, seed, milliseconds())
        self.tracker.update(number, update)

    def epoch(self, number: int, epoch: Epoch) -> None:
        self.tracker.renamed.note(epoch.metrics)
        self.tracker.update(number, trial_updates.epoch(epoch, milliseconds()))

    def ended(self, trial: FrozenTrial, outcome: Outcome) -> None:
        update = trial_updates.ended(self.task, trial, outcome, self.study_state)
        self.tracker.update(trial.number, update)

    def paused(self, number: int, outcome: Outcome) -> None:
        del outcome
        self.tracker.update(number, trial_updates.paused())

    def put_back(self, number: int) -> None:
        self.tracker.update(number, Update(gone=True))

    def place(self, trials: Iterable[FrozenTrial]) -> None:
        state = StudyState.read(self.study, self.task)
        if state == self.study_state:
            return  # the trials' roles and scores follow from the state
        before = [(trial, self._stands(trial)) for trial in trials]
        self.study_state = state
        for trial, update in before:
            if not (now := self._stands(trial)).is_like(update):
                self.tracker.update(trial.number, now)

    def _stands(self, trial: FrozenTrial) -> Update:
        """Return the update with a finished trial's role and test scores."""
        outcome = Outcome.read(trial)
        if outcome is None:
            return Update()
        return trial_updates.placed(self.task, trial, outcome, self.study_state, milliseconds())

    def links(self, study_state: StudyState) -> str:
        pages = {"Trials": self.tracker.link, "the report": self.tracker.page_of(REPORT)}
        if study_state.version is not None:
            pages["the champion's model"] = view.model_page(study_state.study, study_state.version)
        for part, run_id in self.study.user_attrs.get(PART_RUNS, {}).items():
            pages[f"the runs of the {part}"] = view.run_page(self.tracker.experiment_id, run_id)
        return ", ".join(f"[{name}]({page})" for name, page in pages.items())

    def flush(self, seconds: float) -> bool:
        return self.tracker.flush(min(seconds, 5) if self.tracker.writer.down else seconds)

    def describe(
        self,
        text: str,
        values: Mapping[str, float] | None = None,
        scores: Mapping[str, float] | None = None,
        label: str = "",
    ) -> None:
        now = milliseconds()
        metrics = [*own_metrics(0, values or {}, now), *metrics_at(0, scores or {}, now)]
        tags = {"verdict": label} if label else {}
        if self.search_run:
            page = view.run_page(self.tracker.experiment_id, self.search_run)
            text = f"{text} Of the study [{escaped(self.tracker.name)}]({page})."
        self._attempt(lambda: self.tracker.describe(text, metrics, tags))

    def holds_files(self, names: Collection[str]) -> bool:
        return self.tracker.holds_files(names)

    def keep_report(self, files: Mapping[str, str]) -> None:
        self._attempt(lambda: self.tracker.log_report(files))

    def _attempt(self, write: Callable[[], Any]) -> None:
        self.whole &= self.tracker.attempt(write)

    def register(self, models: Models) -> tuple[str, bool]:
        return self.tracker.register(models, self.search_run or self.tracker.writer.run_id)

    def describe_model(self, alias: str, version: str, text: str, page: str = "") -> None:
        del alias
        self.tracker.describe_model(version, text, page)

    def holds(self, versions: Mapping[str, str]) -> bool:
        return self.tracker.holds(versions)

    def address(self, alias: str, version: str = "") -> str:
        name = self.tracker.name
        return f"models:/{name}/{version}" if version else f"models:/{name}@{alias}"

    def run_of(self, number: int) -> str | None:
        return self.tracker.run_of(number)
