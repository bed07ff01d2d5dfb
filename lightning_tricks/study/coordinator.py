"""The coordinator: the only object that calls Optuna's ask and tell.

It sends jobs to workers, handles their events, and notifies observers. Its answer may stop a trial.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from optuna.trial import TrialState

from lightning_tricks.errors import one_line
from lightning_tricks.search import keys, outcomes
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.pruners import prunes
from lightning_tricks.study.grouping import Grouping
from lightning_tricks.study.growth import Growth
from lightning_tricks.study.proposals import Proposals
from lightning_tricks.study.search_plan import SearchPlan
from lightning_tricks.study.session import Session
from lightning_tricks.study.trial_decisions import OpenTrial
from lightning_tricks.trial.result import Epoch, Interrupted
from lightning_tricks.workers.base import Ended, Event, Lost, Measured, Reported, Workers

FIRST_FAILURES = 5
"""Number of failed first trials after which a study gives up: the cause is then not the tricks."""
MOST_REPEATS = 20
"""Number of repeated recipes in a row that ends a search: little else is left to try."""
WAIT_SECONDS = 0.5
"""Polling interval, in seconds, for Ctrl-C and the time limit."""


class Coordinator:
    """Trains the trials of a study, or of a part of one, until there are enough.

    Args:
        session: the open session of the study.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.growth = session, Growth(session)
        self.study, self.task, self.history = session.study, session.task, session.history
        self.progress, self.signals = session.progress, session.signals
        self.observers = session.observers
        self.workers: Workers | None = None
        self.grouping = Grouping(
            self.study,
            self.task,
            session.placement.group_size,
            self.progress,
            session.placement.processes,
            planned=session.searches,
        )
        self.proposals = Proposals(session, self.grouping, self._repeat)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the workers, and put their trials back in the queue."""
        workers, self.workers, self.progress.workers = self.workers, None, 1
        try:
            if workers is not None:
                workers.close()
        finally:
            for running in list(self.proposals.open.values()):
                self._put_back(running)

    def run(self, n_trials: int, plan: SearchPlan | None = None, *, keep_workers: bool = False) -> None:
        """Finish trials until there are enough, time is up or the user wants to leave.

        Args:
            n_trials: number of finished trials in the study at the end. Repeats of an earlier recipe
                do not count.
            plan: may end a search earlier.
            keep_workers: whether to keep the workers for another call.

        Raises:
            InputError: if the first trials all failed.
            Unfinished: if Ray died and cannot be started again.
            KeyboardInterrupt: if the user interrupts.
        """

        def interrupted() -> bool:
            return self.signals.interrupting

        plan = plan or SearchPlan(self.session, n_trials)
        with self.signals.handled(self.progress.print):
            if self.history.counted < self._most(plan) and self.workers is None:
                placement = self.session.placement
                self._work_with(placement.create(self.task, interrupted, self.progress.warn))
            while not interrupted():
                self._end_hopeless(plan.most)
                if not self._advance(self._wanted(self._most(plan))):
                    break
            if not (interrupted() or self._leaving):
                for paused, outcome in self.proposals.pauses.all():
                    self._finish(paused, outcome)
            if not keep_workers or self.proposals.open:
                self.close()
            if self.history.counted < plan.most:
                self._say_why_it_ended()

    def _say_why_it_ended(self) -> None:
        if self.history.repeats_in_a_row >= MOST_REPEATS:
            self.progress.print("the sampler has no more to propose that was not tried before")
        elif self._exhausted:
            self.progress.print("the search was ended by its sampler, or by a callback")
        elif self.signals.late and self.session.searches:
            self.progress.print("time is up: run the same command to go on")

    def _most(self, plan: SearchPlan) -> int:
        """Return the number of trials that there will be, as far as it is known, and show it."""
        proposals = self.proposals
        most = plan.trials(proposals.learned + len(proposals.open), proposals.open.values())
        if plan.budget is not None:
            self.progress.total = None if plan.open else most
        return most

    @property
    def _leaving(self) -> bool:
        """Whether no further trial may begin or go on."""
        return bool(self.signals.late or self.signals.stopping)

    def _wanted(self, n_trials: int) -> int:
        """Return the number of trials still to finish or to pause; take up paused ones first."""
        if self._leaving:
            return 0
        proposals = self.proposals
        if self.workers is not None and self.workers.free and not proposals.queue:
            drawn = proposals.learned + len(proposals.open)
            proposals.go_on(at_end=drawn >= n_trials or self._exhausted)
        wanted = max(n_trials - proposals.learned, 0)
        return min(wanted, len(proposals.open)) if self._exhausted else wanted

    def _end_hopeless(self, n_trials: int) -> None:
        """End the paused trials that cannot go on, whatever the trials to come are."""
        for paused, outcome in self.proposals.pauses.ending(n_trials):
            self._finish(paused, outcome)

    @property
    def _exhausted(self) -> bool:
        if self.history.repeats_in_a_row >= MOST_REPEATS:
            return True
        return bool(getattr(self.study, "exhausted", False))

    def _advance(self, wanted: int) -> bool:
        """Submit trials to free workers and handle events; return whether there was anything to do.

        Args:
            wanted: number of trials still to finish.
        """
        proposals, workers = self.proposals, self.workers
        if not wanted:  # begin no further trial
            for running in [running for running in proposals.queue if not running.submitted]:
                self._put_back(running)
        if workers is None or not (wanted or proposals.open):
            return False
        for _ in range(workers.free):
            if not proposals.queue and len(proposals.open) >= wanted:
                break
            if not proposals.queue and not proposals.ask():
                return True  # a repeat took over an earlier outcome: check the limits before the next
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
        """Finish a trial with the outcome of an earlier trial of the same recipe."""
        outcome = replace(earlier, duplicate_of=number)
        running.job = replace(running.job, seed=outcome.seed)  # the seed of these scores
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
        self.workers.submit([running.job for running in group], self.grouping.group_size)

    def _began(self, running: OpenTrial) -> None:
        job = running.job
        self.observers.began(job.number, job.tricks, job.seed)

    def _on_event(self, event: Event) -> bool:
        """Handle an event; return whether its trial must stop."""
        if isinstance(event, Measured):
            self.grouping.learn(event.group_size)
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
        self.observers.epoch(running.job.number, epoch)
        prune = self.proposals.pauses.rung is None
        return prunes(self.study) and running.report(epoch, self.task.epochs, prune=prune)

    def _on_ended(self, running: OpenTrial, event: Ended) -> None:
        job, result = running.job, event.result
        self.growth.trained.append(result.seconds)
        if result.warning:
            self.progress.warn(f"trial {job.number}: {result.warning}")
        if running.stopped:
            result = running.pruned(result)
        outcome = Outcome.of(job.tricks, job.seed, replace(result, epochs=running.epochs))
        if outcome.state == "paused":
            self._pause(running, replace(outcome, elapsed=self.session.spending.elapsed))
            return
        if outcome.state == "complete" and outcome.score is not None:
            self._save_weights(running, outcome, event)
        self._finish(running, outcome)

    def _pause(self, running: OpenTrial, outcome: Outcome) -> None:
        del self.proposals.open[running.job.number]
        self.proposals.pauses.add(running, outcome)
        self.observers.paused(running.job.number, outcome)

    def _save_weights(self, running: OpenTrial, outcome: Outcome, event: Ended) -> None:
        number, folder = event.number, self.session.folder
        try:
            folder.save_weights(number, outcome, event.weights, reference=running.keeps_weights)
        except Exception as error:  # no space, or the worker died after its last message
            self.progress.warn(f"the weights of trial {number} were not kept: {one_line(error)}")

    def _on_lost(self, running: OpenTrial, lost: Lost) -> None:
        """Queue a trial again that lost its worker, or end it."""
        job, result = running.job, running.lose_worker(lost.reason, counts=lost.by_itself)
        if result is None:
            self.progress.warn(
                f"trial {job.number} lost its worker ({lost.reason}): the trial goes on elsewhere"
            )
            self.proposals.queue.appendleft(running)
            return
        if result.state == "failed":
            self.progress.warn(f"trial {job.number} is given up: {result.reason}")
        self._finish(running, Outcome.of(job.tricks, job.seed, result))

    def _finish(self, running: OpenTrial, outcome: Outcome) -> None:
        """Report a trial's outcome to Optuna, then to the observers."""
        trial = running.trial
        outcome = replace(outcome, elapsed=self.session.spending.elapsed)
        trial.set_user_attr(keys.OUTCOME, outcome.__dict__)
        state = outcomes.STATES[outcome.state]
        value = outcome.score if state == TrialState.COMPLETE else None
        ended = self.study.tell(trial, value, state=state)
        self.proposals.open.pop(trial.number, None)
        self.observers.ended(ended, outcome)

    def _put_back(self, running: OpenTrial) -> None:
        number = running.job.number
        self.observers.put_back(number)
        try:
            self.proposals.put_back(running)
        except Exception as error:  # it stays RUNNING; the next run requeues it
            self.progress.warn(f"trial {number} was not put back in the queue: {one_line(error)}")

    def _add_workers(self, wanted: int) -> None:
        """Move from this process to several workers once the remaining work is worth their start."""
        if self.proposals.open or self.signals.stopping:
            return
        if several := self.growth.several(wanted - 1):
            if self.workers is not None:
                self.workers.close()
            self._work_with(several)

    def _work_with(self, workers: Workers) -> None:
        self.workers, self.progress.workers = workers, workers.count
