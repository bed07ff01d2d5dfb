"""The next trials to train: drawn by a sampler, alone or in groups, or left over from before."""

from collections import deque
from collections.abc import Callable

import optuna
from optuna.samplers import BaseSampler

from lightning_tricks.fusion.shape import shape_in, shape_of
from lightning_tricks.search import keys
from lightning_tricks.search.optuna_internals import ask, last_reported, requeue
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.pruners import prunes
from lightning_tricks.search.sampling.given import given_recipe
from lightning_tricks.search.sampling.shaped import PartialFixed
from lightning_tricks.search.studies import failing
from lightning_tricks.seeds import derive
from lightning_tricks.study.grouping import Grouping
from lightning_tricks.study.pauses import Pauses
from lightning_tricks.study.session import Session
from lightning_tricks.study.trial_decisions import OpenTrial
from lightning_tricks.trial.job import Job
from lightning_tricks.tricks.recipe import Tricks

ANOTHER = ", which must take conditional spaces with floats"
Repeats = Callable[[OpenTrial, int, Outcome], None]
"""Called with a repeated trial, and the number and the outcome of the earlier trial of its recipe."""


class Proposals:
    """A study's trials that were asked for and have not ended.

    Args:
        session: the session of the study.
        grouping: decides how many trials are drawn together.
        repeats: finishes a trial that repeats an earlier recipe.
    """

    def __init__(self, session: Session, grouping: Grouping, repeats: Repeats) -> None:
        self.pauses = Pauses(session)
        self.study, self.space, self.seed = session.study, session.space, session.seed
        self.folder, self.history = session.folder, session.history
        self.grouping, self.repeats = grouping, repeats
        self.open: dict[int, OpenTrial] = {}
        """All these trials, by number."""
        self.queue: deque[OpenTrial] = deque()
        """Trials that wait for a worker."""
        trials = self.study.get_trials(deepcopy=False)
        self._latest = len(trials) - 1
        """Number of the latest trial."""
        self._left_over = {t.number for t in trials if self.pauses.waits(t)}
        """Numbers of the trials that were waiting when this run began; they come first."""

    def ask(self, first: OpenTrial | None = None, sampler: BaseSampler | None = None) -> bool:
        """Ask for one trial; return whether it must be trained.

        Args:
            first: the first trial of its group, if it is for one.
            sampler: sampler to use instead of the study's.
        """
        group = None if first is None else first.group
        noted = self.pauses.noted | ({} if group is None else {keys.GROUP: list(group)})
        drawing = sampler or self.study.sampler
        with failing("sampler", self.study.sampler, ANOTHER):
            trial, tricks = ask(self.study, drawing, self._suggest, noted, self.pauses.waits)
        self._latest = max(self._latest, trial.number)
        self._left_over.discard(trial.number)
        given = trial.user_attrs.get(keys.SEED)
        seed = derive(self.seed, trial.number) if given is None else int(given)
        reported = last_reported(self.study, trial) if prunes(self.study) else -1
        path, pause_after = self.folder.checkpoint(trial.number), self.pauses.after(trial)
        job = Job(trial.number, tricks, seed, path, pause_after)
        asked = OpenTrial.of(trial, job, reported)
        if group is not None and asked.group is None:
            asked.join(*group)
        self.open[trial.number] = asked
        earlier = self._known(tricks) if given is None else None
        if earlier is None:
            self.queue.append(asked)
            return True
        self.repeats(asked, *earlier)
        return False

    def _known(self, tricks: Tricks) -> tuple[int, Outcome] | None:
        """Return an earlier trial of a recipe, and its outcome; None if there is none."""
        return self.history.outcome_of(tricks) or self.pauses.outcome_of(tricks)

    @property
    def learned(self) -> int:
        """Number of trials with a score that a sampler can learn from."""
        return self.history.counted + len(self.pauses)

    def go_on(self, *, at_end: bool) -> None:
        """Put the paused trials whose turn it is into the queue.

        Args:
            at_end: whether no further trial will be drawn.
        """
        at_end &= all(one.job.contends for one in self.open.values())  # none will pause any more
        for one in self.pauses.going_on(at_end=at_end):
            self.open[one.job.number] = one
            self.queue.append(one)

    def _suggest(self, trial: optuna.Trial) -> Tricks:
        """Return a trial's recipe: the given one, or one drawn from the space."""
        given = given_recipe(trial)
        found: Tricks = self.space.suggest(trial) if given is None else self.space.model.parse(given)
        return found

    def group(self, wanted: int, workers: int) -> list[OpenTrial]:
        """Take the next trial from the queue, with those that can be trained together with it.

        Args:
            wanted: number of trials still to finish.
            workers: number of workers that share them.
        """
        first = self.queue.popleft()
        if first.losses:  # it may have killed its worker: train it alone
            return [first]
        if first.epochs:  # it goes on after a pause, with others that do
            return [first, *self._taken(first)]
        left = wanted - len(self.open) + len(self.queue) + 1
        share = -(-left // workers)  # leave work for the other workers
        drawn = self.grouping.drawn(first, share, self.learned)
        if drawn == 1:
            return [first]
        fixed = PartialFixed(shape_in(first.trial.params), self.study.sampler)
        while len(self._alike(first)) + 1 < drawn:
            if len(self.open) >= wanted or not self._may_ask(first):
                break
            self.ask(first, fixed)
        return [first, *self._taken(first)]

    def _taken(self, first: OpenTrial) -> list[OpenTrial]:
        """Take the trials from the queue that are trained together with `first`."""
        others = self._alike(first)[: self.grouping.together - 1]
        for other in others:
            self.queue.remove(other)
        return others

    def put_back(self, one: OpenTrial) -> None:
        """Put a trial back into the storage's queue, for a later run."""
        del self.open[one.job.number]
        if one in self.queue:
            self.queue.remove(one)
        requeue(self.study, one.trial)

    def _alike(self, first: OpenTrial) -> list[OpenTrial]:
        """Return the queued trials that can be trained together with `first`."""
        shape, goes_on = shape_of(first.job.tricks), bool(first.epochs)
        return [
            one
            for one in self.queue
            if shape_of(one.job.tricks) == shape and not one.losses and bool(one.epochs) == goes_on
        ]

    def _may_ask(self, first: OpenTrial) -> bool:
        """Return whether more trials may be drawn for a group.

        A search fixes the group size in advance. Left-over trials of a group were drawn before the
        study died.
        """
        next_one = min(self._left_over, default=self._latest + 1)
        return not self.grouping.planned or next_one <= first.group_end
