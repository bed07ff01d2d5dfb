"""The second half of a study: the best records run again over fresh seeds, and one becomes the champion.

The seeds that choose are not those that are reported, so that the choice does not flatter the report.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence

from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.errors import InputError, one_line
from lightning_tricks.search.outcomes import (
    CHAMPION,
    DRAW,
    REPORT,
    SELECTION,
    VERDICT,
    Outcome,
)
from lightning_tricks.search.standing import remember_champion, verdict_of
from lightning_tricks.selection.champion import Champion, choose
from lightning_tricks.selection.intervals import Interval, difference
from lightning_tricks.selection.race import FIRST, Race
from lightning_tricks.selection.result import Row, Verdict
from lightning_tricks.study import models
from lightning_tricks.study.coordinator import Coordinator
from lightning_tricks.study.reruns import Reruns, beside, finalists, record_of
from lightning_tricks.study.rows import Rows
from lightning_tricks.tricks.record import Tricks


def judge(search: Coordinator, count: int, seeds: int, budget: int) -> Verdict:
    """Run the verdict of a search that has its trials; register the champion and its ensemble.

    Args:
        search: whose coordinator is still entered.
        count: of the best records that are compared, beside the baseline and plain.
        seeds: to choose with, and as many again to report.
        budget: of trainings for choosing; what `seeds` leave of it is for those that tie.

    Raises:
        InputError: if no record could be trained to its end.
        KeyboardInterrupt: if the user asked for it; the same command goes on.
    """
    trials = finalists(search, count)
    before = verdict_of(search.study)
    asked = (tuple(trials), seeds, budget)
    same = before is not None and (before.names, before.seeds, before.budget) == asked
    if before is not None and same and _is_registered(search):
        return before  # the test split is not looked at again
    looks = 0 if before is None else before.before + (not same)
    return _judge(search, trials, seeds, budget, looks)


def again(search: Coordinator) -> Verdict | None:
    """Return the verdict that a study holds, its champion registered anew if MLflow lost it.

    Nothing is trained, and the test split is not looked at: Optuna holds all of that.
    """
    before = verdict_of(search.study)
    if before is None or _is_registered(search):
        return before
    known = finalists(search, len(search.history))
    trials = {name: known[name] for name in before.names}
    return _judge(search, trials, before.seeds, before.budget, before.before, before.searched)


def _judge(
    search: Coordinator,
    trials: Mapping[str, FrozenTrial],
    seeds: int,
    budget: int,
    looks: int,
    searched: int | None = None,
) -> Verdict:
    """Run what of a verdict was not run yet, and register its champion.

    Args:
        search: of which the verdict is.
        trials: those that are compared, by name.
        seeds: to choose with, and as many again to report.
        budget: of trainings for choosing.
        looks: that earlier verdicts had at the test split.
        searched: how many trials the search had, if it went on since.
    """
    records = {name: record_of(search, trial) for name, trial in trials.items()}
    with beside(search, VERDICT) as own:
        choosing = max(seeds * len(records), budget)
        own.progress.start_stage("verdict", choosing + 3 * seeds, list(own.history))
        judgement = _Judgement(search, own, records, seeds, budget)
        champion = judgement.select()
        rows = judgement.report(champion.name)
        number, gain = trials[champion.name].number, judgement.gain(champion.name)
        held = (budget, search.history.counted if searched is None else searched, looks)
        verdict = Verdict(tuple(trials), seeds, champion, number, rows, gain, *held)
        words = verdict.headline(search.task.monitor, search.task.mode)
        judgement.register(champion.name, number, words)
        means = {f"{row}/validation": scored.validation.mean for row, scored in rows.items()}
        means |= {f"{row}/test": scored.test.mean for row, scored in rows.items() if scored.test}
        own.recorded &= own.tracker.attempt(lambda: own.tracker.describe(words, means))
        search.study.set_user_attr(VERDICT, verdict.plain())
    return verdict


def _is_registered(search: Coordinator) -> bool:
    """Tell whether MLflow has the champion that Optuna knows of."""
    known = search.study.user_attrs.get(CHAMPION)
    try:
        return known is not None and search.tracker.champion() == known["version"]
    except Exception:  # a server that went away: what it has is left as it is
        return True


class _Judgement:
    """One verdict, from the race to the registration."""

    def __init__(
        self,
        search: Coordinator,
        own: Coordinator,
        records: Mapping[str, Tricks],
        seeds: int,
        budget: int,
    ) -> None:
        self.search, self.own, self.records = search, own, records
        self.seeds, self.budget = seeds, budget
        self.task, self.reruns, self.rows = search.task, Reruns(own), Rows(own)
        self.reports: dict[str, list[FrozenTrial]] = {}
        """The trials of the report, by the names of their records."""

    def select(self) -> Champion:
        """Let the records race over the first seeds, and choose."""
        race = Race(list(self.records), self.seeds, self.task.mode == "max")
        seconds: dict[str, list[float]] = {name: [] for name in self.records}
        for found in self._draws(race):
            scores = {n: float(t.value) for n, t in found.items() if t.value is not None}
            for name, trial in found.items():
                outcome = Outcome.read(trial)
                seconds[name].append(outcome.seconds if outcome else 0.0)
            if not scores:
                raise InputError("no record of the verdict could be trained to its end")
            for name in race.add(scores):
                self.own.progress.print(f"verdict: {name} is clearly worse, and runs no further")
        means = {name: statistics.fmean(spent) for name, spent in seconds.items()}
        return choose(race, self.records, means)

    def _draws(self, race: Race) -> Iterator[dict[str, FrozenTrial]]:
        """Train who runs, seed by seed; the first seeds and those of a second round all at once."""
        first = range(min(FIRST, self.seeds))
        yield from self._train(race.names, first)
        for draw in range(len(first), self.seeds):
            yield from self._train(race.running, [draw])
        if further := race.second_round(self.budget):
            tied = len(race.running)
            more = "one seed more" if further == 1 else f"{further} seeds more"
            self.own.progress.print(f"verdict: {tied} records go on, over {more}")
            yield from self._train(race.running, range(self.seeds, self.seeds + further))
        elif self.budget and len(race.tied()) > 1:
            what = f"{self.budget} trainings leave none for a second round"
            self.own.progress.print(f"verdict: {what}, the first takes {race.spent}")

    def _train(self, names: Sequence[str], draws: Sequence[int]) -> list[dict[str, FrozenTrial]]:
        return self.reruns.run(SELECTION, {name: self.records[name] for name in names}, draws)

    def report(self, name: str) -> dict[str, Row]:
        """Train champion, baseline and plain over further seeds; return how good they are."""
        wanted = {"plain": "plain", "baseline": "baseline", "champion": name}
        wanted = {row: entry for row, entry in wanted.items() if entry in self.records}
        entries = {entry: self.records[entry] for entry in wanted.values()}
        for found in self.reruns.run(REPORT, entries, range(self.seeds)):
            for entry, trial in found.items():
                if trial.state == TrialState.COMPLETE:
                    self.reports.setdefault(entry, []).append(trial)
        rows = {row: self.rows.row(self.reports[e]) for row, e in wanted.items() if e in self.reports}
        if (together := self.rows.ensemble_row(self.reports.get(name, []))) is not None:
            rows["ensemble"] = together
        self.rows.trained.tell(trial for trials in self.reports.values() for trial in trials)
        return rows

    def gain(self, name: str) -> Interval | None:
        """Return how much better the champion is than the baseline, seed by seed."""
        if name == "baseline":
            return None
        mine, theirs = (
            {t.user_attrs[DRAW]: float(t.value or 0.0) for t in self.reports.get(entry, [])}
            for entry in (name, "baseline")
        )
        both = sorted(mine.keys() & theirs.keys())
        return difference([mine[d] for d in both], [theirs[d] for d in both]) if both else None

    def register(self, name: str, number: int, words: str) -> None:
        """Register the model of the champion's median seed, and all its seeds as an ensemble.

        Args:
            name: of the champion's record.
            number: of its trial in the search.
            words: how good it is.
        """
        trials = sorted(self.reports.get(name, []), key=lambda trial: trial.value or 0.0)
        tracker = self.own.tracker
        if not trials or not tracker.flush(timeout=60):
            return
        middle = trials[(len(trials) - 1) // 2]
        try:
            module, standing = self.rows.trained.restore(middle), self.rows.trained.standing
            what = (
                f"{name.capitalize()}, trained again: the median of {len(trials)} fresh seeds. {words}"
            )
            version = models.register(self.task, module, tracker, middle.number, standing, what)
            remember_champion(self.search.study, number, tracker.run_of(middle.number), version)
            if (together := self.rows.ensemble(trials)) is not None:
                models.register_ensemble(self.task, together, tracker, middle.number, len(trials))
        except Exception as error:  # of the export or MLflow: the study stands
            self.own.progress.warn(
                f"no champion was registered: {type(error).__name__}: {one_line(error)}"
            )
            self.own.recorded &= tracker.answers()
