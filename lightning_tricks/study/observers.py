"""The observers of every study: the progress line, the dashboard's notes, the callbacks."""

from collections.abc import Callable, Sequence

import optuna
from optuna.trial import FrozenTrial

from lightning_tricks.errors import user_code
from lightning_tricks.report.summary import score_of
from lightning_tricks.search.dashboard import note
from lightning_tricks.search.keys import ROLE
from lightning_tricks.search.observer import Observer
from lightning_tricks.search.optuna_internals import live
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.story import story
from lightning_tricks.search.study_state import StudyState
from lightning_tricks.study.history import History
from lightning_tricks.study.progress import Progress
from lightning_tricks.task.task import Task

Callback = Callable[[optuna.Study, FrozenTrial], None]
"""Takes a study and a finished trial, as in `optuna.Study.optimize`."""


class Telling(Observer):
    """Show each finished trial of a search on the progress line.

    Args:
        progress: shows the line.
        history: the study's history; it must be notified of a trial first.
    """

    def __init__(self, progress: Progress, history: History) -> None:
        self.progress, self.history = progress, history

    def paused(self, number: int, outcome: Outcome) -> None:
        paused = self.progress.paused
        earlier, paused[number] = paused.get(number), outcome.seconds
        seconds = outcome.seconds - (earlier or 0.0)
        epochs = len(outcome.epochs)
        after = f"{epochs} epoch{'s' if epochs > 1 else ''}"
        line = f"trial {number}: {outcome.score:.4f} after {after}, paused"
        self.progress.trial_ended(line, "WAITING", self._best(), seconds, again=earlier is not None)

    def ended(self, trial: FrozenTrial, outcome: Outcome) -> None:
        earlier = self.progress.paused.pop(trial.number, None)
        seconds = outcome.seconds - (earlier or 0.0)
        repeated = outcome.duplicate_of is not None
        took = f"repeats trial {outcome.duplicate_of}" if repeated else f"{seconds:.1f} s"
        reason = f", {outcome.reason}" if outcome.reason else ""
        line = f"{self._name(trial)}: {score_of(trial)}, {took}{reason}"
        self.progress.trial_ended(
            "" if earlier is not None and outcome.state == "pruned" else line,
            trial.state.name,
            self._best(),
            None if repeated else seconds,
            again=earlier is not None,
        )

    def _name(self, trial: FrozenTrial) -> str:
        return f"trial {trial.number}"

    def _best(self) -> str:
        best = self.history.best
        return "none yet" if best is None else f"{best.value:.4f} (trial {best.number})"


class TellingOfReruns(Telling):
    """Show each trial of a verdict or an ablation, without a best: the best of many seeds is luck."""

    def _name(self, trial: FrozenTrial) -> str:
        return str(trial.user_attrs[ROLE])

    def _best(self) -> str:
        return ""


class Noting(Observer):
    """Write a note for each trial, for optuna-dashboard.

    Args:
        study: the study.
        task: its task.
    """

    def __init__(self, study: optuna.Study, task: Task) -> None:
        self.study, self.task, self.study_state = study, task, StudyState.read(study, task)

    def ended(self, trial: FrozenTrial, outcome: Outcome) -> None:
        note(live(self.study, trial), story(self.task, trial, outcome, self.study_state))


class CallingBack(Observer):
    """Call the user's callbacks after each trial.

    Args:
        study: the study to pass to the callbacks.
        callbacks: the user's callbacks.
    """

    def __init__(self, study: optuna.Study, callbacks: Sequence[Callback]) -> None:
        self.study, self.callbacks = study, callbacks

    def ended(self, trial: FrozenTrial, outcome: Outcome) -> None:
        del outcome
        for callback in self.callbacks:
            with user_code("a callback of the study fails"):
                callback(self.study, trial)
