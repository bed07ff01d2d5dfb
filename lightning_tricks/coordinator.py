"""The coordinator: the only one that asks and tells Optuna, and that tells MLflow.

Jobs go out to workers, events come back; a stop is an answer to one. What is decided here holds,
however late a worker hears of it: epochs after a stop, and those heard before, are left out.
"""

import math
import statistics
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Self

import optuna
from optuna.pruners import NopPruner
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks import agreement, champion, ledger, updates
from lightning_tricks.errors import InputError, in_a_line
from lightning_tricks.hooks import TricksHooks
from lightning_tricks.ledger import Outcome, Standing
from lightning_tricks.placement import Placement
from lightning_tricks.progress import Progress
from lightning_tricks.report import Summary, score_of, summarize
from lightning_tricks.search import finished, put_back
from lightning_tricks.seeds import derive
from lightning_tricks.shelf import Shelf
from lightning_tricks.signals import Wishes
from lightning_tricks.space import Space
from lightning_tricks.task import Task
from lightning_tricks.tracking import Tracker, Update, how_to_look, milliseconds
from lightning_tricks.trial import Epoch, Interrupted, Result, stopped_after
from lightning_tricks.tricks import Tricks
from lightning_tricks.updates import command
from lightning_tricks.workers import Ended, Event, Job, Lost, Reported, Workers

FIRST_FAILURES = 5
"""When so many trials failed and none did not, the mistake is not in the tricks."""
DEATHS = 3
"""A trial whose worker died so often is given up."""
WAIT_SECONDS = 0.5
"""How often it is looked whether the user wants to leave or time is up."""

AtTimeout = Literal["finish", "put-back"]


@dataclass(eq=False)
class _UnderWay:
    """A trial that was asked for and did not end."""

    trial: optuna.Trial
    job: Job
    reported: int
    """The last epoch that Optuna has heard of; a trial that was put back makes them again."""
    deaths: int = 0
    stop_at: int | None = None
    """The epoch after which it was decided that it is to stop."""
    begun: bool = False
    stopped: bool = False
    epochs: list[Epoch] = field(default_factory=list)


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
        bar: Progress,
        shelf: Shelf,
        wishes: Wishes,
        repair: bool = False,
    ) -> None:
        self.study, self.task, self.space, self.seed = study, task, space, seed
        self.placement, self.tracker, self.bar = placement, tracker, bar
        self.shelf, self.wishes, self.repair = shelf, wishes, repair
        self.prunes = not isinstance(study.pruner, NopPruner)
        self.workers: Workers | None = None
        self.queue: deque[_UnderWay] = deque()
        """The trials that wait for a worker."""
        self.under_way: dict[int, _UnderWay] = {}
        """Those and the trials that are trained, by number."""
        self.ended: dict[int, FrozenTrial] = {}
        """The finished trials by number: a storage takes long to list them."""
        self.known: dict[str, int] = {}
        """The number of the first finished trial by the key of its record."""
        self.best: FrozenTrial | None = None
        self.trained: list[float] = []
        """The seconds of each trial that was trained in this run."""
        self.recorded = True
        """Whether MLflow holds all of the study; certain once this is left."""

    def __enter__(self) -> Self:
        """Take the study up: what was under way goes back in the queue, MLflow is set right."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            put_back(self.study, trial)
        for trial in finished(self.study):
            self._remember(trial)
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        self.shelf.clear(trial.number for trial in waiting)
        self.shelf.know(*ledger.shelved(self.ended.values()))
        if not self.ended and not waiting:
            self._enqueue_references()
        wrong = agreement.wrong(self.study, self.task, self.tracker.uri) if self.repair else ()
        run_id = self.tracker.open(
            self.study.user_attrs.get(ledger.MLFLOW_RUN),
            self.study.study_name,
            {"study": self.study.study_name, "command": command(), "tricks": "study", "role": "study"},
        )
        if run_id != self.study.user_attrs.get(ledger.MLFLOW_RUN):
            self.study.set_user_attr(ledger.MLFLOW_RUN, run_id)
        self.tracker.attempt(
            lambda: self.tracker.save_view(
                updates.columns(self.task, self.space), self.task.mode == "min"
            )
        )
        whole = partial(updates.whole, self.task, standing=self.standing)
        self.tracker.reconcile({n: partial(whole, trial) for n, trial in self.ended.items()}, wrong)
        if self.repair:
            self.tracker.sweep()
        return self

    def __exit__(self, kind: type[BaseException] | None, *unused: object) -> None:
        del unused
        try:
            self._leave()
        finally:
            self.recorded &= self.tracker.close("FINISHED" if kind is None else "KILLED")

    @property
    def missing(self) -> str:
        """What MLflow lacks, and what to do; empty if it holds all of the study."""
        if self.recorded:
            return ""
        count = self.tracker.unwritten
        return (
            f"MLflow at {self.tracker.uri} is incomplete"
            f"{f' ({count} trials are not written, or not whole)' if count else ''}: Optuna holds all; "
            "once MLflow is up, run the same command again to write what is missing"
        )

    def run(self, n_trials: int, timeout: float | None, at_timeout: AtTimeout) -> None:
        """Finish trials until there are enough, time is up or the user wants to leave.

        Raises:
            InputError: if the first trials all failed.
            Unfinished: if Ray died, and cannot be had again.
            KeyboardInterrupt: at the user's wish.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout

        def late() -> bool:
            return time.monotonic() >= deadline

        def dropped() -> bool:
            return self.wishes.leave or (at_timeout == "put-back" and late())

        with self.wishes.listen(self.bar.say):
            if len(self.ended) < n_trials:
                self.workers = self.placement.begin(self.task, dropped, self.bar.warn)
            while not dropped():
                wanted = 0 if late() or self.wishes.end else n_trials - len(self.ended)
                if self._exhausted:
                    wanted = min(wanted, len(self.under_way))
                if not self._advance(wanted):
                    break
            self._leave()
            if len(self.ended) < n_trials and self._exhausted:
                self.bar.say("the sampler has no more to propose")
            elif len(self.ended) < n_trials and late():
                self.bar.say(f"time is up after {timeout:g} s")

    @property
    def _exhausted(self) -> bool:
        return bool(getattr(self.study, "exhausted", False))

    def _leave(self) -> None:
        """Let the workers go, and put back what they were at."""
        workers, self.workers = self.workers, None
        try:
            if workers is not None:
                workers.close()
        finally:
            for under in list(self.under_way.values()):
                self._put_back(under)

    def _advance(self, wanted: int) -> bool:
        """Give out what can be given, and hear what happened; return whether there was anything.

        Args:
            wanted: finished trials, beside those there are.
        """
        if not wanted:  # nothing is begun any more
            for under in [u for u in self.queue if not u.begun]:
                self._put_back(under)
        workers = self.workers
        if workers is None or not (wanted or self.under_way):
            return False
        free = workers.free
        while free and (self.queue or len(self.under_way) < wanted):
            if not self.queue and not self._ask():
                return True  # it took over an earlier outcome: look around before the next
            self._start(self.queue.popleft())
            free -= 1
        if not self.queue and len(self.under_way) < wanted and len(self.under_way) > 1:
            self._ask()  # the next one, so that no worker waits for it
        try:
            workers.wait(self._hear, WAIT_SECONDS)
        except Interrupted:
            return False
        self._stop_if_hopeless(FIRST_FAILURES)
        self._grow(wanted)
        return True

    def conclude(self) -> Summary:
        """Crown the champion, describe the study in MLflow and return what it found.

        Raises:
            InputError: if all trials failed.
        """
        self._stop_if_hopeless(least=1)
        best = self.best
        compared = ledger.compared(list(self.ended.values()), best)
        for trial in compared:
            self._test(trial)
        if best is None:
            self.bar.warn("no trial used its whole budget, so there is no champion")
        elif self.tracker.flush(timeout=5 if self.tracker.down else 60):
            self._crown(best)
        standing = self.standing
        self._place([*compared, *(self.ended[number] for number in standing.former)], standing)
        summary = summarize(self.study, self.task)
        if self.tracker.flush(timeout=5):
            metrics = {} if best is None else {"best": best.value or 0.0}
            metrics |= {} if best is None else standing.tests.get(best.number, {})
            text = (
                f"Study of the training tricks of `{self.task.name}`: {self.task.monitor} of trials "
                f"of up to {self.task.epochs} epochs.\n\n{summary.markdown()}\n\n"
                f"Reproduce it with `{command()}`."
            )
            self.recorded &= self.tracker.attempt(lambda: self.tracker.describe(text, metrics))
        look = how_to_look(self.tracker.uri, self.tracker.link)
        return replace(summary, look=look)

    def _enqueue_references(self) -> None:
        references = {"baseline": self.task.reference(), "plain": self.task.tricks.plain()}
        seen = []
        for role, tricks in references.items():
            nearest = self.space.nearest(tricks)
            if role == "baseline":
                self.study.set_user_attr(ledger.BASELINE, nearest.model_dump())
            if nearest not in seen:
                seen.append(nearest)
                self.study.enqueue_trial(self.space.params(nearest), user_attrs={"role": role})

    def _ask(self) -> bool:
        """Ask for one trial; return whether there is anything to train about it."""
        trial = self.study.ask()
        seed = derive(self.seed, trial.number)
        try:
            tricks: Tricks = self.space.suggest(trial)
        except BaseException:
            put_back(self.study, trial)
            raise
        reported = -1
        if self.prunes:
            frozen = self.study._storage.get_trial(trial._trial_id)
            reported = max(frozen.intermediate_values, default=-1)
        job = Job(trial.number, tricks, seed, self.shelf.checkpoint(trial.number))
        attrs = trial.user_attrs
        under = _UnderWay(trial, job, reported, attrs.get(ledger.DEATHS, 0), attrs.get(ledger.STOP_AT))
        self.under_way[trial.number] = under
        twin = self.known.get(ledger.key(tricks.model_dump()))
        if twin is None:
            self.queue.append(under)
            return True
        earlier = Outcome.read(self.ended[twin])
        assert earlier is not None  # else its record would not be known
        outcome = replace(earlier, duplicate_of=twin)
        under.job = replace(job, seed=outcome.seed)  # the one that the scores are of
        self._begin(under)
        for epoch in outcome.history:
            self._report(under, epoch)
        self._finish(under, outcome)
        return False

    def _start(self, under: _UnderWay) -> None:
        assert self.workers is not None
        if not under.begun:
            self._begin(under)
            under.begun = True
        self.workers.start(under.job)

    def _begin(self, under: _UnderWay) -> None:
        job = under.job
        self.tracker.update(job.number, updates.began(self.task, job.tricks, job.seed, milliseconds()))

    def _hear(self, event: Event) -> bool:
        """Take an event of a trial; return whether the trial is to stop."""
        under = self.under_way[event.number]
        match event:
            case Reported(epoch=epoch):
                return self._report(under, epoch)
            case Ended():
                self._end(under, event)
            case Lost(reason=reason):
                self._lose(under, reason)
        return False

    def _report(self, under: _UnderWay, epoch: Epoch) -> bool:
        if under.stopped or (under.epochs and epoch.number <= under.epochs[-1].number):
            return under.stopped
        under.epochs.append(epoch)
        self.tracker.update(under.job.number, updates.epoch(epoch, milliseconds()))
        if not self.prunes:
            return False
        if epoch.number > under.reported:
            under.trial.report(epoch.score, epoch.number)
        undecided = epoch.number >= under.reported and under.stop_at is None
        if undecided and under.trial.should_prune() and epoch.number + 1 < self.task.epochs:
            under.stop_at = epoch.number
            under.trial.set_user_attr(ledger.STOP_AT, epoch.number)
        under.stopped = epoch.number == under.stop_at
        return under.stopped

    def _end(self, under: _UnderWay, event: Ended) -> None:
        job, result = under.job, event.result
        self.trained.append(result.seconds)
        if result.trouble:
            self.bar.warn(f"trial {job.number}: {result.trouble}")
        if under.stopped:
            result = self._stopped(under, result)
        outcome = Outcome.of(job.tricks, job.seed, result)
        if outcome.state == "complete" and outcome.score is not None:
            try:
                reference = ledger.ROLE in under.trial.user_attrs
                self.shelf.put(job.number, outcome, event.weights, reference=reference)
            except Exception as error:  # no space, or a worker that died after its last word
                self.bar.warn(f"the weights of trial {job.number} were not kept: {in_a_line(error)}")
        self._finish(under, outcome)

    def _stopped(self, under: _UnderWay, result: Result) -> Result:
        """Return the result of a trial that was to stop: with the epochs up to the decision."""
        reason = stopped_after(under.epochs)
        return replace(result, state="pruned", epochs=under.epochs, reason=reason, traceback="")

    def _lose(self, under: _UnderWay, why: str) -> None:
        """Train a trial again whose worker died, or give it up."""
        number = under.job.number
        under.deaths += 1
        result = None
        if under.stopped:
            result = self._stopped(under, Result("pruned"))
        elif under.deaths >= DEATHS:
            result = Result("failed", under.epochs, f"its worker was lost {DEATHS} times: {why}")
            self.bar.warn(f"trial {number} is given up: {result.reason}")
        if result is not None:
            self._finish(under, Outcome.of(under.job.tricks, under.job.seed, result))
            return
        under.trial.set_user_attr(ledger.DEATHS, under.deaths)
        self.bar.warn(f"the worker of trial {number} is lost ({why}): the trial goes on elsewhere")
        self.queue.appendleft(under)

    def _finish(self, under: _UnderWay, outcome: Outcome) -> None:
        trial = under.trial
        trial.set_user_attr(ledger.OUTCOME, outcome.__dict__)
        state = ledger.STATES[outcome.state]
        ended = self.study.tell(
            trial, outcome.score if state == TrialState.COMPLETE else None, state=state
        )
        del self.under_way[trial.number]
        self._remember(ended)
        self.shelf.drop(trial.number)
        self.tracker.update(trial.number, updates.ended(self.task, ended, outcome, self.standing))
        story = (
            f"repeats trial {outcome.duplicate_of}"
            if outcome.duplicate_of is not None
            else f"{outcome.seconds:.1f} s"
        )
        reason = f", {outcome.reason}" if outcome.reason else ""
        self.bar.finish(
            f"trial {trial.number}: {score_of(ended)}, {story}{reason}",
            state.name,
            "none yet" if self.best is None else f"{self.best.value:.4f} (trial {self.best.number})",
            None if outcome.duplicate_of is not None else outcome.seconds,
            self._parallel,
        )

    @property
    def _parallel(self) -> int:
        """How many workers there are: those that train, and those that are free."""
        free = 0 if self.workers is None else self.workers.free
        return max(free + len(self.under_way) - len(self.queue), 1)

    def _remember(self, trial: FrozenTrial) -> None:
        self.ended[trial.number] = trial
        outcome = Outcome.read(trial)
        if outcome is not None and trial.state != TrialState.FAIL:
            self.known.setdefault(outcome.key, trial.number)
        rivals = [t for t in (self.best, trial) if t is not None]
        self.best = ledger.best_of(rivals, self.task.mode)

    def _put_back(self, under: _UnderWay) -> None:
        del self.under_way[under.job.number]
        if under in self.queue:
            self.queue.remove(under)
        self.tracker.update(under.job.number, Update(gone=True))
        try:
            put_back(self.study, under.trial)
        except Exception as error:  # it stays RUNNING, and is taken up all the same
            self.bar.warn(f"trial {under.job.number} was not put back: {in_a_line(error)}")

    def _grow(self, wanted: int) -> None:
        """Move from this process to several, once the work that is left is worth their start."""
        left = wanted - 1
        if len(self.trained) < 2 or self.under_way or left < 2 or self.wishes.end:
            return  # the first trial is no measure: it pays for what is loaded and compiled once
        mean = statistics.median_low(self.trained)
        count = self.placement.worth(self.task, left, left * mean)
        if count == 1:
            return
        self.bar.say(f"about {left * mean:.0f} s of work are left: going on with {count} workers")
        try:
            grown = self.placement.grow(self.task, count, self.bar.warn)
        except InputError as error:
            self.bar.warn(f"staying in this process: {error}")
        else:
            if self.workers is not None:
                self.workers.close()
            self.workers = grown
        self.placement = replace(self.placement, workers="inline")

    @property
    def standing(self) -> Standing:
        """Where the study stands."""
        return Standing.read(self.study, self.task)

    def _test(self, trial: FrozenTrial) -> None:
        """Look at the test split with a trial's model, unless that was done before."""
        if trial.number in self.standing.tests:
            return
        try:
            ledger.remember_test(
                self.study, trial.number, champion.test(self.task, self._restore(trial))
            )
        except Exception as error:  # of the user's code: the study stands
            self.bar.warn(
                f"trial {trial.number} has no test score: {type(error).__name__}: {in_a_line(error)}"
            )

    def _restore(self, trial: FrozenTrial) -> TricksHooks:
        outcome = Outcome.read(trial)
        assert outcome is not None  # it used its whole budget
        return champion.restore(self.task, outcome, self.shelf, trial.number, self.bar.say)

    def _crown(self, best: FrozenTrial) -> None:
        held = self.study.user_attrs.get(ledger.CHAMPION)
        run_id = self.tracker.run_of(best.number)
        crowned = held and held["trial"] == best.number and held["run_id"] == run_id
        if held and crowned and self.tracker.champion() == held["version"]:
            return
        name, number = self.study.study_name, best.number
        try:
            module = self._restore(best)
            version = champion.register(self.task, module, self.tracker, name, number, self.standing)
        except Exception as error:  # of the export or MLflow: the study stands
            self.bar.warn(f"no champion was registered: {type(error).__name__}: {in_a_line(error)}")
            self.recorded &= self.tracker.answers()
            return
        ledger.remember_champion(self.study, number, run_id, version)

    def _place(self, trials: Iterable[FrozenTrial], standing: Standing) -> None:
        """Tell MLflow anew where trials stand that are, or were, something to the study."""
        for trial in trials:
            outcome = Outcome.read(trial)
            assert outcome is not None  # it used its whole budget
            update = updates.placed(self.task, trial, outcome, standing, milliseconds())
            self.tracker.update(trial.number, update)

    def _stop_if_hopeless(self, least: int) -> None:
        if self.known or len(self.ended) < least:
            return
        trials = list(self.ended.values())
        if any(t.state != TrialState.FAIL for t in trials):
            return
        outcome = Outcome.read(trials[-1])
        raise InputError(
            f"the first {len(trials)} trials all failed, the last one with: "
            f"{outcome.reason if outcome else 'no reason'}"
        )
