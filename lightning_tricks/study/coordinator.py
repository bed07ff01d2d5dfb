"""The coordinator: the only one that asks and tells Optuna, and that tells MLflow.

Jobs go out to workers, events come back; a stop is an answer to one.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.errors import InputError, one_line, user_code
from lightning_tricks.search import outcomes
from lightning_tricks.search.dashboard import note
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.pruners import prunes
from lightning_tricks.search.standing import Standing, known_runs
from lightning_tricks.search.studies import finished
from lightning_tricks.selection.result import Verdict
from lightning_tricks.space.space import Space
from lightning_tricks.study.conclusion import Conclusion
from lightning_tricks.study.folder import StudyFolder
from lightning_tricks.study.grouping import Grouping
from lightning_tricks.study.history import History
from lightning_tricks.study.progress import Progress
from lightning_tricks.study.proposals import Proposals
from lightning_tricks.study.signals import Signals
from lightning_tricks.study.summary import Summary, score_of
from lightning_tricks.study.trial_decisions import OpenTrial
from lightning_tricks.task.task import Task
from lightning_tricks.tracking import agreement, trial_updates, view
from lightning_tricks.tracking.format import milliseconds
from lightning_tricks.tracking.run_update import Update
from lightning_tricks.tracking.tracker import Tracker
from lightning_tricks.trial.result import Epoch, Interrupted
from lightning_tricks.workers.base import Ended, Event, Lost, Measured, Reported, Workers
from lightning_tricks.workers.placement import Placement

FIRST_FAILURES = 5
"""When the first trials all failed, and they are so many, the mistake is not in the tricks."""
MOST_REPEATS = 20
"""A search ends when the sampler proposed so many tried records in a row: little else is left to try."""
WAIT_SECONDS = 0.5
"""How often it is looked whether the user wants to leave or time is up."""


class Coordinator:
    """One run of a study, from taking it up to its conclusion."""

    def __init__(
        self,
        study: optuna.Study,
        task: Task,
        space: Space[Any],
        seed: int,
        placement: Placement,
        tracker: Tracker,
        progress: Progress,
        folder: StudyFolder,
        signals: Signals,
        repair: bool = False,
    ) -> None:
        self.study, self.task, self.space, self.seed = study, task, space, seed
        self.placement, self.tracker, self.progress = placement, tracker, progress
        self.folder, self.signals, self.repair = folder, signals, repair
        self.workers: Workers | None = None
        self.history = History(task.mode)
        self.trained: list[float] = []
        """The seconds of each trial that was trained in this run."""
        self.searches = tracker.kind == "study"
        """Whether a sampler draws the trials: those of a verdict and an ablation are given."""
        self.grouping = Grouping(study, task, placement.width, progress, planned=self.searches)
        self.proposals = Proposals(study, space, seed, folder, self.history, self.grouping, self._repeat)
        self.callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], None]] = ()
        """Are called after each trial of the search, as Optuna does."""
        self.recorded = True
        """Whether MLflow holds all of the study; certain once this is left."""

    def __enter__(self) -> Self:
        """Take the study up: what was under way goes back in the queue, MLflow is set right."""
        left_over = self.proposals.take_up()
        for trial in finished(self.study):
            self.history.add(trial)
        self.folder.remove_checkpoints(except_of=left_over)
        self.folder.rank(*outcomes.with_weights(self.history))
        if outcomes.BASELINE not in self.study.user_attrs and self.searches:
            self._begin()
        self.standing = Standing.read(self.study, self.task)
        """As it was at the start: what changes it comes after the last trial."""
        self._open_tracker()
        return self

    def __exit__(self, kind: type[BaseException] | None, *unused: object) -> None:
        del unused
        try:
            self._close_workers()
        finally:
            self.recorded &= self.tracker.close("FINISHED" if kind is None else "KILLED")

    @property
    def missing(self) -> str:
        """What MLflow lacks, and what to do; empty if it holds all of the study."""
        if self.recorded:
            return ""
        if why := next(iter(self.tracker.writer.refused.values()), ""):
            return f"MLflow at {self.tracker.uri} refuses some of what Optuna holds of the study: {why}"
        count = self.tracker.writer.unwritten
        return (
            f"MLflow at {self.tracker.uri} is incomplete"
            f"{f' ({count} trials are not written, or not whole)' if count else ''}: Optuna holds all; "
            "once MLflow is up, run the same command again to write what is missing"
        )

    def run(self, n_trials: int, *, keep_workers: bool = False) -> None:
        """Finish trials until there are enough, time is up or the user wants to leave.

        Args:
            n_trials: finished trials in the study at the end; those that repeat an earlier record do
                not count, for the sampler is asked again.
            keep_workers: whether the workers stay, for a further call.

        Raises:
            InputError: if the first trials all failed.
            Unfinished: if Ray died, and cannot be had again.
            KeyboardInterrupt: if the user asked for it.
        """

        def interrupted() -> bool:
            return self.signals.interrupting

        with self.signals.handled(self.progress.print):
            if self.history.counted < n_trials and self.workers is None:
                self.workers = self.placement.create(self.task, interrupted, self.progress.warn)
            while not interrupted():
                wanted = (
                    0 if self.signals.late or self.signals.stopping else n_trials - self.history.counted
                )
                if self._exhausted:
                    wanted = min(wanted, len(self.proposals.open))
                if not self._advance(wanted):
                    break
            if not keep_workers or self.proposals.open:
                self._close_workers()
            if self.history.counted < n_trials and self._exhausted:
                tried = self.history.repeats_in_a_row >= MOST_REPEATS
                self.progress.print(
                    "the sampler has no more to propose that was not tried"
                    if tried
                    else "the search was ended by its sampler, or by a callback"
                )
            elif self.history.counted < n_trials and self.signals.late and self.searches:
                self.progress.print("time is up: the same command goes on")

    def conclude(self, verdict: Verdict | None = None) -> Summary:
        """Register the champion, describe the study in MLflow and return what it found.

        Args:
            verdict: which has registered the champion already; without one it is the best trial.

        Raises:
            InputError: if all trials failed.
        """
        self.history.check(least=1)
        conclusion = Conclusion(
            self.study, self.task, self.history, self.tracker, self.folder, self.progress
        )
        summary = conclusion.write() if verdict is None else conclusion.write_verdict(verdict)
        self.recorded &= conclusion.recorded
        return summary

    def _open_tracker(self) -> None:
        """Open the study's run in MLflow, and write what is missing or wrong there."""
        wrong = agreement.wrong(self.study, self.task, self.tracker.store) if self.repair else ()
        known = self.study.user_attrs.get(outcomes.MLFLOW_RUN)
        name = self.tracker.name
        kind = self.tracker.kind
        tags = {"study": name, "command": trial_updates.command(), "tricks": kind, "role": kind}
        if (run_id := self.tracker.open(known, tags)) != known:
            self.study.set_user_attr(outcomes.MLFLOW_RUN, run_id)
        commands = self.study.user_attrs.get(outcomes.COMMANDS, [])
        if not self.repair and tags["command"] not in commands:
            self.study.set_user_attr(outcomes.COMMANDS, [*commands, tags["command"]])
        columns, ascending = view.columns(self.task, self.space), self.task.mode == "min"
        if self.searches:
            self.tracker.attempt(lambda: self.tracker.save_view(columns, ascending))
        whole = partial(trial_updates.whole, self.task, standing=self.standing)
        self.tracker.reconcile({t.number: partial(whole, t) for t in self.history}, wrong)
        if self.repair:
            self.tracker.sweep(known_runs(self.study))

    def _begin(self) -> None:
        """Begin with the user's module as it is, the baseline and plain, as near as the space allows."""
        baseline = self.space.nearest(self.task.reference())
        self.study.set_user_attr(outcomes.BASELINE, baseline.model_dump())
        plain = self.space.nearest(self.task.tricks.plain())
        yours = self.task.yours()
        first = {} if yours is None else {"yours": yours}
        self.proposals.begin_with({**first, "baseline": baseline, "plain": plain})

    @property
    def _exhausted(self) -> bool:
        if self.history.repeats_in_a_row >= MOST_REPEATS:
            return True
        return bool(getattr(self.study, "exhausted", False))

    def _close_workers(self) -> None:
        """Let the workers go, and put what they were at back in the queue."""
        workers, self.workers = self.workers, None
        try:
            if workers is not None:
                workers.close()
        finally:
            for running in list(self.proposals.open.values()):
                self._put_back(running)

    def _advance(self, wanted: int) -> bool:
        """Submit what can be, and handle what happened; return whether there was anything to do.

        Args:
            wanted: finished trials, beside those there are.
        """
        proposals, workers = self.proposals, self.workers
        if not wanted:  # nothing is begun any more
            for running in [running for running in proposals.queue if not running.submitted]:
                self._put_back(running)
        if workers is None or not (wanted or proposals.open):
            return False
        for _ in range(workers.free):
            if not proposals.queue and len(proposals.open) >= wanted:
                break
            if not proposals.queue and not proposals.ask():
                return True  # it took over an earlier outcome: look around before the next
            self._submit(proposals.group(wanted, workers.count))
        if not proposals.queue and len(proposals.open) < wanted and workers.count > 1:
            proposals.ask()  # the next one, so that no worker waits for it
        try:
            workers.wait(self._on_event, WAIT_SECONDS)
        except Interrupted:
            return False
        self.history.check(FIRST_FAILURES)
        self._add_workers(wanted)
        return True

    def _repeat(self, running: OpenTrial, number: int, earlier: Outcome) -> None:
        """Let a trial end as an earlier one of its record did."""
        outcome = replace(earlier, duplicate_of=number)
        running.job = replace(running.job, seed=outcome.seed)  # the one that the scores are of
        self._began(running)
        for epoch in outcome.history:
            self._on_report(running, epoch)
        self._finish(running, outcome)

    def _submit(self, group: Sequence[OpenTrial]) -> None:
        assert self.workers is not None
        for running in group:
            if not running.submitted:
                self._began(running)
                running.submitted = True
        self.workers.submit([running.job for running in group], self.grouping.width)

    def _began(self, running: OpenTrial) -> None:
        job = running.job
        self.tracker.update(
            job.number, trial_updates.began(self.task, job.tricks, job.seed, milliseconds())
        )

    def _on_event(self, event: Event) -> bool:
        """Handle an event; return whether the trial that it is of is to stop."""
        if isinstance(event, Measured):
            self.grouping.learn(event.width)
            return False
        running = self.proposals.open[event.number]
        match event:
            case Reported(epoch=epoch):
                return self._on_report(running, epoch)
            case Ended():
                self._on_ended(running, event)
            case Lost():
                self._on_lost(running, event)
        return False

    def _on_report(self, running: OpenTrial, epoch: Epoch) -> bool:
        if not running.is_new(epoch):
            return running.stopped
        running.epochs.append(epoch)
        self.tracker.renamed.note(epoch.metrics)
        self.tracker.update(running.job.number, trial_updates.epoch(epoch, milliseconds()))
        return prunes(self.study) and running.report(epoch, self.task.epochs)

    def _on_ended(self, running: OpenTrial, event: Ended) -> None:
        job, result = running.job, event.result
        self.trained.append(result.seconds)
        if result.trouble:
            self.progress.warn(f"trial {job.number}: {result.trouble}")
        if running.stopped:
            result = running.pruned(result)
        outcome = Outcome.of(job.tricks, job.seed, result)
        if outcome.state == "complete" and outcome.score is not None:
            self._save_weights(running, outcome, event)
        self._finish(running, outcome)

    def _save_weights(self, running: OpenTrial, outcome: Outcome, event: Ended) -> None:
        number = event.number
        try:
            self.folder.save_weights(number, outcome, event.weights, reference=running.keeps_weights)
        except Exception as error:  # no space, or a worker that died after its last word
            self.progress.warn(f"the weights of trial {number} were not kept: {one_line(error)}")

    def _on_lost(self, running: OpenTrial, lost: Lost) -> None:
        """Train a trial again that lost its worker, or let it end."""
        job, result = running.job, running.lose_worker(lost.reason, counts=lost.by_itself)
        if result is None:
            self.progress.warn(
                f"the worker of trial {job.number} is lost ({lost.reason}): the trial goes on elsewhere"
            )
            self.proposals.queue.appendleft(running)
            return
        if result.state == "failed":
            self.progress.warn(f"trial {job.number} is given up: {result.reason}")
        self._finish(running, Outcome.of(job.tricks, job.seed, result))

    def _finish(self, running: OpenTrial, outcome: Outcome) -> None:
        """Tell Optuna and MLflow how a trial ended."""
        trial = running.trial
        trial.set_user_attr(outcomes.OUTCOME, outcome.__dict__)
        state = outcomes.STATES[outcome.state]
        value = outcome.score if state == TrialState.COMPLETE else None
        ended = self.study.tell(trial, value, state=state)
        del self.proposals.open[trial.number]
        self.history.add(ended)
        self.folder.remove_checkpoint(trial.number)
        self.tracker.update(trial.number, trial_updates.ended(self.task, ended, outcome, self.standing))
        self._show(ended, outcome)
        if self.searches:
            note(trial, trial_updates.story(self.task, ended, outcome, self.standing))
            self._call_back(ended)

    def _call_back(self, ended: FrozenTrial) -> None:
        """Call what the user gave to be called after each trial."""
        for callback in self.callbacks:
            with user_code("a callback of the study fails"):
                callback(self.study, ended)

    def _show(self, trial: FrozenTrial, outcome: Outcome) -> None:
        repeated = outcome.duplicate_of is not None
        took = f"repeats trial {outcome.duplicate_of}" if repeated else f"{outcome.seconds:.1f} s"
        reason = f", {outcome.reason}" if outcome.reason else ""
        best = self.history.best
        found = "none yet" if best is None else f"{best.value:.4f} (trial {best.number})"
        name = f"trial {trial.number}" if self.searches else trial.user_attrs[outcomes.ROLE]
        self.progress.trial_ended(
            f"{name}: {score_of(trial)}, {took}{reason}",
            trial.state.name,
            found if self.searches else "",  # of many seeds the best is the luckiest
            None if repeated else outcome.seconds,
            self._parallel,
        )

    @property
    def _parallel(self) -> int:
        """How many workers there are."""
        return 1 if self.workers is None else self.workers.count

    def _put_back(self, running: OpenTrial) -> None:
        number = running.job.number
        self.tracker.update(number, Update(gone=True))
        try:
            self.proposals.put_back(running)
        except Exception as error:  # it stays RUNNING, and is taken up all the same
            self.progress.warn(f"trial {number} was not put back in the queue: {one_line(error)}")

    def _add_workers(self, wanted: int) -> None:
        """Move from this process to several, once the work that is left is worth their start."""
        left = wanted - 1
        if len(self.trained) < 2 or self.proposals.open or left < 2 or self.signals.stopping:
            return  # the first trial is no measure: it pays for what is loaded and compiled once
        seconds = left * statistics.median_low(self.trained)
        count = self.placement.worthwhile(self.task, left, seconds)
        if count == 1:
            return
        self.progress.print(f"about {seconds:.0f} s of work are left: going on with {count} workers")
        try:
            several = self.placement.create_several(self.task, count, self.progress.warn)
        except InputError as error:
            self.progress.warn(f"staying in this process: {error}")
        else:
            if self.workers is not None:
                self.workers.close()
            self.workers = several
        self.placement = replace(self.placement, workers="inline")
