"""The coordinator: the only one that asks and tells Optuna, and that tells MLflow.

Trials run in this process, one after another, through `trial.train`: a job out, reports and a
result back. Nothing else connects a trial with the study, so that it may run elsewhere.
"""

import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.pruners import NopPruner
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks import champion, ledger, updates
from lightning_tricks.errors import InputError, check_name, in_a_line
from lightning_tricks.ledger import Outcome
from lightning_tricks.progress import Progress
from lightning_tricks.report import Summary, score_of, summarize
from lightning_tricks.search import finished, put_back
from lightning_tricks.seeds import derive
from lightning_tricks.space import Space
from lightning_tricks.task import Task
from lightning_tricks.tracking import (
    Tracker,
    Update,
    how_to_look,
    milliseconds,
)
from lightning_tricks.trial import Epoch, Interrupted, Result, train
from lightning_tricks.tricks import Tricks

FIRST_FAILURES = 5
"""When so many trials failed and none did not, the mistake is not in the tricks."""


def optimize(
    study: optuna.Study,
    task: Task,
    *,
    n_trials: int,
    space: Space[Any] | None = None,
    timeout: float | None = None,
    seed: int = 0,
    tracking_uri: str = "sqlite:///mlflow.db",
    checkpoints: str | Path = "checkpoints",
    progress: bool = True,
) -> Summary:
    """Search the tricks of a task until the study holds `n_trials` finished trials.

    The first two are the baseline `Tricks()` and `Tricks.plain()`, as near to them as the space
    allows; the study's sampler proposes the others. A study that holds some trials already goes on.

    Args:
        study: with any sampler, pruner and storage.
        task: what to train.
        n_trials: finished trials in the study at the end, those of earlier runs included.
        space: the search space; by default that of the task's record type.
        timeout: seconds after which no further trial begins.
        seed: the seed of each trial follows from it and the trial's number.
        tracking_uri: anything MLflow takes.
        checkpoints: the folder that keeps the weights of the best trial.
        progress: whether to tell how far it is, on the standard error.

    Raises:
        InputError: if anything given is not valid or does not fit; nothing is lost.
        KeyboardInterrupt: after Ctrl-C; the trial under way was put back in the queue.
    """
    space = Space(task.tricks) if space is None else space
    _check(study, task, n_trials, space, timeout, seed)
    shelf = champion.Shelf(Path(checkpoints) / study.study_name)
    shelf.make()
    trials = finished(study)
    with _alone(shelf.folder), Progress(n_trials, trials, quiet=not progress) as bar:
        tracker = Tracker(tracking_uri, study.study_name, bar.warn)
        ledger.claim(study, task, space, seed)
        with _Coordinator(study, task, space, seed, tracker, bar, shelf) as coordinator:
            if len(trials) >= n_trials:
                bar.say(f"nothing to train: the study holds {len(trials)} finished trials already")
            elif trials:
                bar.say(f"going on: {len(trials)} of {n_trials} trials are finished already")
            coordinator.run(n_trials, timeout)
            return coordinator.conclude()


def _check(
    study: optuna.Study,
    task: Task,
    n_trials: int,
    space: Space[Any],
    timeout: float | None,
    seed: int,
) -> None:
    for name, value, least in (("n_trials", n_trials, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or value < least:
            raise InputError(f"{name} must be a whole number of at least {least} (got {value!r})")
    if timeout is not None and not (isinstance(timeout, (int, float)) and timeout > 0):
        raise InputError(f"timeout must be greater than 0 seconds (got {timeout!r})")
    if not isinstance(space, Space) or not issubclass(space.model, task.tricks):
        raise InputError(f"the space must be one of {task.tricks.__name__} (got {space!r:.80})")
    if len(study.directions) > 1:
        raise InputError(f"the study must have one objective (got {len(study.directions)})")
    check_name(study.study_name)
    task.check(space)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second program from putting back the trials that this one is training."""
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another program works on this study: wait for it to end (it holds {folder}/lock)"
        ) from None
    try:
        yield
    finally:
        lock.release()


class _Coordinator:
    """One run of a study, from taking it up to its conclusion."""

    def __init__(
        self,
        study: optuna.Study,
        task: Task,
        space: Space[Any],
        seed: int,
        tracker: Tracker,
        bar: Progress,
        shelf: champion.Shelf,
    ) -> None:
        self.study, self.task, self.space, self.seed = study, task, space, seed
        self.tracker, self.bar = tracker, bar
        self.shelf = shelf
        self.interrupts = 0
        self.ended: dict[int, FrozenTrial] = {}
        """The finished trials by number: a storage takes long to list them."""
        self.known: dict[str, int] = {}
        """The number of the first finished trial by the key of its record."""

    def __enter__(self) -> "_Coordinator":
        """Take the study up: what was under way goes back in the queue, MLflow is set right."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            put_back(self.study, trial)
        for trial in finished(self.study):
            self.ended[trial.number] = trial
            if (outcome := Outcome.read(trial)) and trial.state != TrialState.FAIL:
                self.known.setdefault(outcome.key, trial.number)
        if not self.study.get_trials(deepcopy=False):
            self._enqueue_references()
        run_id = self.tracker.open(
            self.study.user_attrs.get(ledger.MLFLOW_RUN),
            self.study.study_name,
            {"study": self.study.study_name, "command": command(), "tricks": "study"},
        )
        if run_id != self.study.user_attrs.get(ledger.MLFLOW_RUN):
            self.study.set_user_attr(ledger.MLFLOW_RUN, run_id)
        self.tracker.attempt(
            lambda: self.tracker.save_view(updates.columns(self.task), self.task.mode == "min")
        )
        self.tracker.reconcile(
            {n: partial(updates.whole, self.task, trial) for n, trial in self.ended.items()},
            state="trial.state",
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, *unused: object) -> None:
        del unused
        self.tracker.close("FINISHED" if kind is None else "KILLED")

    def run(self, n_trials: int, timeout: float | None) -> None:
        """Finish trials until there are enough, time is up or the user wants to leave."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._listen():
            while len(self.ended) < n_trials:
                if deadline is not None and time.monotonic() >= deadline:
                    self.bar.say(f"time is up after {timeout:g} s")
                    return
                self._next()
                self._stop_if_hopeless(FIRST_FAILURES)

    def conclude(self) -> Summary:
        """Crown the champion, describe the study in MLflow and return what it found."""
        self._stop_if_hopeless(least=1)
        best = self._best()
        if best is None:
            self.bar.warn("no trial used its whole budget, so there is no champion")
        elif not self.tracker.flush(timeout=5 if self.tracker.down else 60):
            self.bar.warn(
                f"MLflow at {self.tracker.uri} is still down: run the same command again to write "
                "what is missing"
            )
        else:
            self._crown(best)
        summary = summarize(self.study, self.task)
        if self.tracker.flush(timeout=5):
            metrics = {} if best is None else {"best": best.value or 0.0}
            text = (
                f"Study of the training tricks of `{self.task.name}`: {self.task.monitor} of trials "
                f"of up to {self.task.epochs} epochs.\n\n{summary.markdown()}\n\n"
                f"Reproduce it with `{command()}`."
            )
            self.tracker.attempt(lambda: self.tracker.describe(text, metrics))
        look = how_to_look(self.tracker.uri, self.tracker.link)
        return replace(summary, look=look)

    def _enqueue_references(self) -> None:
        references = {"baseline": self.task.tricks(), "plain": self.task.tricks.plain()}
        seen = []
        for role, tricks in references.items():
            nearest = self.space.nearest(tricks)
            if nearest not in seen:
                seen.append(nearest)
                self.study.enqueue_trial(self.space.params(nearest), user_attrs={"role": role})

    def _next(self) -> None:
        """Ask for one trial, and finish it or put it back."""
        trial = self.study.ask()
        seed = derive(self.seed, trial.number)
        try:
            tricks: Tricks = self.space.suggest(trial)
            twin = self.known.get(ledger.key(tricks.model_dump()))
            self.tracker.update(trial.number, updates.began(self.task, tricks, seed, milliseconds()))
            if twin is not None:
                outcome = self._repeat(trial, twin)
            else:
                result = train(self.task, tricks, seed, self._reporter(trial), self._leaving)
                outcome = Outcome.of(tricks, seed, result)
                self._keep(trial, result)
        except BaseException as error:
            put_back(self.study, trial)
            self.tracker.update(trial.number, Update(gone=True))
            if isinstance(error, Interrupted):
                raise KeyboardInterrupt(f"trial {trial.number} was put back") from None
            raise
        self._finish(trial, outcome)

    def _finish(self, trial: optuna.Trial, outcome: Outcome) -> None:
        trial.set_user_attr(ledger.OUTCOME, outcome.__dict__)
        state = ledger.STATES[outcome.state]
        ended = self.study.tell(
            trial, outcome.score if state == TrialState.COMPLETE else None, state=state
        )
        self.ended[trial.number] = ended
        if state != TrialState.FAIL:
            self.known.setdefault(outcome.key, trial.number)
        self.tracker.update(trial.number, updates.ended(self.task, ended, outcome))
        best = self._best()
        story = (
            f"repeats trial {outcome.duplicate_of}"
            if outcome.duplicate_of is not None
            else (f"{outcome.seconds:.1f} s")
        )
        reason = f", {outcome.reason}" if outcome.reason else ""
        self.bar.finish(
            f"trial {trial.number}: {score_of(ended)}, {story}{reason}",
            state.name,
            "none yet" if best is None else f"{best.value:.4f} (trial {best.number})",
        )

    def _reporter(self, trial: optuna.Trial) -> Callable[[Epoch], bool]:
        """Return what hears of each epoch of a trial, and says whether to stop."""
        # A trial that was put back has some of its reports already, and will make the same again.
        prunes = not isinstance(self.study.pruner, NopPruner)
        frozen = self.study._storage.get_trial(trial._trial_id) if prunes else None
        reported = set(frozen.intermediate_values) if frozen else set()

        def report(epoch: Epoch) -> bool:
            self.tracker.update(trial.number, updates.epoch(epoch, milliseconds()))
            if not prunes:
                return False
            if epoch.number not in reported:
                trial.report(epoch.score, epoch.number)
            return trial.should_prune()

        return report

    def _repeat(self, trial: optuna.Trial, twin: int) -> Outcome:
        """Take over the outcome of an earlier trial of the same record, reports included."""
        outcome = Outcome(**{**self.ended[twin].user_attrs[ledger.OUTCOME], "duplicate_of": twin})
        report = self._reporter(trial)
        for epoch in outcome.history:
            report(epoch)
        return outcome

    def _keep(self, trial: optuna.Trial, result: Result) -> None:
        """Keep the weights of a trial that is the best so far."""
        if result.state != "complete" or result.score is None:
            return
        best = self._best()
        sign = 1 if self.task.mode == "max" else -1
        if best is None or sign * result.score > sign * (best.value or 0.0):
            self.shelf.put(trial.number, result.weights)

    def _crown(self, best: FrozenTrial) -> None:
        held = self.study.user_attrs.get(ledger.CHAMPION)
        run_id = self.tracker.run_of(best.number)
        if held and held["trial"] == best.number and held["run_id"] == run_id:
            return
        outcome = Outcome.read(best)
        if outcome is None:
            return
        try:
            crowned = champion.crown(self.task, outcome, self.shelf, best.number, self.bar.say)
            version = champion.register(crowned, self.tracker, self.study.study_name, self.task)
        except Exception as error:  # of the test split, the export or MLflow: the study stands
            self.bar.warn(f"no champion was registered: {type(error).__name__}: {in_a_line(error)}")
            return
        self.study.set_user_attr(
            ledger.CHAMPION,
            {"trial": best.number, "run_id": run_id, "version": version, "test": crowned.test},
        )

    def _stop_if_hopeless(self, least: int) -> None:
        trials = list(self.ended.values())
        if len(trials) < least or any(t.state != TrialState.FAIL for t in trials):
            return
        outcome = Outcome.read(trials[-1])
        raise InputError(
            f"the first {len(trials)} trials all failed, the last one with: "
            f"{outcome.reason if outcome else 'no reason'}"
        )

    def _best(self) -> FrozenTrial | None:
        return ledger.best_of(self.ended.values(), self.task.mode)

    def _leaving(self) -> bool:
        return self.interrupts > 0

    @contextmanager
    def _listen(self) -> Iterator[None]:
        """Turn Ctrl-C and SIGTERM into a wish that is looked at between training steps."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def wish(number: int, frame: object) -> None:
            del number, frame
            self.interrupts += 1
            if self.interrupts > 1:
                raise KeyboardInterrupt

        before = {number: signal.signal(number, wish) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
            if self.interrupts:
                raise KeyboardInterrupt
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def command() -> str:
    """Return the command that started this program."""
    return shlex.join(["python", *sys.argv])
