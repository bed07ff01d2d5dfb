"""The second half of a study: the best records run again over fresh seeds, and one becomes the champion.

The seeds that choose are not those that are reported, so that the choice does not flatter the report.
"""

import statistics
from collections.abc import Mapping, Sequence

from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from lightning_tricks.errors import InputError, one_line
from lightning_tricks.module.conversion import without_tricks
from lightning_tricks.module.ensemble import Ensemble
from lightning_tricks.module.hooks import TricksHooks
from lightning_tricks.module.tricks_module import TricksModule
from lightning_tricks.search.outcomes import (
    CHAMPION,
    DRAW,
    OTHER_RUN,
    REPORT,
    SELECTION,
    VERDICT,
    Outcome,
)
from lightning_tricks.search.standing import Standing, remember_champion, remember_test
from lightning_tricks.study import champion, evaluation
from lightning_tricks.study.coordinator import Coordinator
from lightning_tricks.study.draws import Draws, beside, finalists
from lightning_tricks.tracking import updates
from lightning_tricks.tracking.format import milliseconds
from lightning_tricks.tricks.record import Tricks
from lightning_tricks.verdict.choice import Choice, choose
from lightning_tricks.verdict.intervals import Interval, difference, mean_interval
from lightning_tricks.verdict.race import Race
from lightning_tricks.verdict.result import Row, Verdict


def judge(search: Coordinator, count: int, seeds: int) -> Verdict:
    """Run the verdict of a search that has its trials; register the champion and its ensemble.

    Args:
        search: whose coordinator is still entered.
        count: of the best records that are compared, beside the baseline and plain.
        seeds: to choose with, and as many again to report.

    Raises:
        InputError: if no record could be trained to its end.
        KeyboardInterrupt: if the user asked for it; the same command goes on.
    """
    trials = finalists(search, count)
    before = held(search)
    same = before is not None and (before.names, before.seeds) == (tuple(trials), seeds)
    if before is not None and same and _is_registered(search):
        return before  # the test split is not looked at again
    records = {name: _record(search, trial) for name, trial in trials.items()}
    with beside(search) as own:
        search.study.set_user_attr(OTHER_RUN, own.tracker.writer.run_id)
        own.progress.start_stage("verdict", seeds * (len(records) + 3), list(own.history))
        judgement = _Judgement(search, own, records, seeds)
        choice = judgement.select()
        rows = judgement.report(choice.champion)
        judgement.register(choice.champion, trials[choice.champion].number)
        verdict = Verdict(
            names=tuple(trials),
            seeds=seeds,
            choice=choice,
            trial=trials[choice.champion].number,
            rows=rows,
            gain=judgement.gain(choice.champion),
            before=0 if before is None else before.before + (not same),
        )
        if judgement.registered:
            search.study.set_user_attr(VERDICT, verdict.plain())
    search.recorded &= own.recorded
    return verdict


def held(search: Coordinator) -> Verdict | None:
    """Return the verdict that a study holds; None if it has none."""
    data = search.study.user_attrs.get(VERDICT)
    return None if data is None else Verdict.read(data)


def repair(search: Coordinator) -> None:
    """Write the runs of a verdict's trials anew where they are wrong in MLflow."""
    if held(search) is not None:
        with beside(search) as own:
            pass
        search.recorded &= own.recorded


def _is_registered(search: Coordinator) -> bool:
    """Tell whether MLflow has the champion that Optuna knows of."""
    known = search.study.user_attrs.get(CHAMPION)
    try:
        return known is not None and search.tracker.champion() == known["version"]
    except Exception:  # a server that went away: what it has is left as it is
        return True


def _record(search: Coordinator, trial: FrozenTrial) -> Tricks:
    outcome = Outcome.read(trial)
    assert outcome is not None  # else it would be no finalist
    record: Tricks = search.task.tricks.parse(outcome.record)
    return record


class _Judgement:
    """One verdict, from the race to the registration."""

    def __init__(
        self, search: Coordinator, own: Coordinator, records: Mapping[str, Tricks], seeds: int
    ) -> None:
        self.search, self.own, self.records, self.seeds = search, own, records, seeds
        self.task, self.draws = search.task, Draws(own)
        self.registered = False
        """Whether MLflow holds the champion."""
        self.reports: dict[str, list[FrozenTrial]] = {}
        """The trials of the report, by the names of their records."""
        self._outputs: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
        """What a trial's model answers on a split, and the targets."""

    def select(self) -> Choice:
        """Let the records race over the first seeds, and choose."""
        race = Race(list(self.records), self.seeds, self.task.mode == "max")
        seconds: dict[str, list[float]] = {name: [] for name in self.records}
        for draw in range(self.seeds):
            found = self.draws.run(SELECTION, {n: self.records[n] for n in race.running}, draw)
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

    def report(self, name: str) -> dict[str, Row]:
        """Train champion, baseline and plain over further seeds; return how good they are."""
        wanted = {"plain": "plain", "baseline": "baseline", "champion": name}
        wanted = {row: entry for row, entry in wanted.items() if entry in self.records}
        for draw in range(self.seeds):
            entries = {entry: self.records[entry] for entry in wanted.values()}
            for entry, trial in self.draws.run(REPORT, entries, draw).items():
                if trial.state == TrialState.COMPLETE:
                    self.reports.setdefault(entry, []).append(trial)
        rows = {row: self._row(self.reports[e]) for row, e in wanted.items() if e in self.reports}
        if (together := self._ensemble_row(self.reports.get(name, []))) is not None:
            rows["ensemble"] = together
        self._tell_tests()
        return rows

    def _tell_tests(self) -> None:
        """Tell MLflow of the test scores."""
        standing = Standing.read(self.own.study, self.task)
        for trial in (trial for trials in self.reports.values() for trial in trials):
            outcome = Outcome.read(trial)
            assert outcome is not None  # it was trained to its end
            update = updates.placed(self.task, trial, outcome, standing, milliseconds())
            self.own.tracker.update(trial.number, update)

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

    def register(self, name: str, number: int) -> None:
        """Register the model of the champion's median seed, and all its seeds as an ensemble."""
        trials = sorted(self.reports.get(name, []), key=lambda trial: trial.value or 0.0)
        tracker = self.own.tracker
        if not trials or not tracker.flush(timeout=60):
            return
        middle = trials[(len(trials) - 1) // 2]
        try:
            standing = Standing.read(self.own.study, self.task)
            module = self._restore(middle)
            version = champion.register(self.task, module, tracker, middle.number, standing)
            remember_champion(self.search.study, number, tracker.run_of(middle.number), version)
            if (together := self._ensemble(trials)) is not None:
                champion.register_ensemble(self.task, together, tracker, middle.number, len(trials))
            self.registered = True
        except Exception as error:  # of the export or MLflow: the study stands
            self.own.progress.warn(
                f"no champion was registered: {type(error).__name__}: {one_line(error)}"
            )
            self.own.recorded &= tracker.answers()

    def _row(self, trials: Sequence[FrozenTrial]) -> Row:
        validation = mean_interval([float(trial.value or 0.0) for trial in trials])
        return Row(validation, self._test(trials))

    def _test(self, trials: Sequence[FrozenTrial]) -> Interval | None:
        """Return the test score of some models, over seeds and samples; over seeds if it must be."""
        if not self.task.tests():
            return None
        seen = Standing.read(self.own.study, self.task).tests
        for trial in trials:
            if trial.number not in seen:
                metrics = champion.test(self.task, self._restore(trial))
                remember_test(self.own.study, trial.number, metrics)
        measure = evaluation.measure_of(self.task, self.task.monitor)
        answers = [self._answers("test", trial) for trial in trials]
        held = [answer for answer in answers if answer is not None]
        if measure is not None and held:
            return evaluation.interval(measure, [outputs for outputs, _ in held], held[0][1])
        name = f"test/{self.task.monitor.partition('/')[2]}"
        tests = Standing.read(self.own.study, self.task).tests
        found = [tests[t.number][name] for t in trials if name in tests[t.number]]
        return mean_interval(found) if found else None

    def _ensemble_row(self, trials: Sequence[FrozenTrial]) -> Row | None:
        measure = evaluation.measure_of(self.task, self.task.monitor)
        if len(trials) < 2 or measure is None:
            return None
        intervals: dict[str, Interval] = {}
        for split in ("val", "test") if self.task.tests() else ("val",):
            answers = [self._answers(split, trial) for trial in trials]
            held = [answer for answer in answers if answer is not None]
            if len(held) < len(trials):
                return None
            together = evaluation.average(self.task, [outputs for outputs, _ in held])
            intervals[split] = evaluation.interval(measure, [together], held[0][1])
        # The others' validation intervals are over seeds, of which an ensemble has taken all.
        return Row(Interval(intervals["val"].mean, None, None), intervals.get("test"))

    def _answers(self, split: str, trial: FrozenTrial) -> tuple[Tensor, Tensor] | None:
        """Return what a trial's model answers; None if it is a user's module, which has no outputs."""
        if (split, trial.number) not in self._outputs:
            module = self._restore(trial)
            if not isinstance(module, TricksModule):
                return None
            loader = getattr(self.task.data, f"{split}_dataloader")()
            self._outputs[split, trial.number] = evaluation.answers(module.network(), loader)
        return self._outputs[split, trial.number]

    def _ensemble(self, trials: Sequence[FrozenTrial]) -> Ensemble | None:
        modules = [self._restore(trial) for trial in trials]
        if len(modules) < 2 or not all(isinstance(module, TricksModule) for module in modules):
            return None
        probabilities = evaluation.averages_probabilities(self.task)
        return Ensemble([without_tricks(m) for m in modules], probabilities=probabilities).eval()

    def _restore(self, trial: FrozenTrial) -> TricksHooks:
        outcome = Outcome.read(trial)
        assert outcome is not None  # it was trained to its end
        own = self.own
        return champion.restore(self.task, outcome, own.folder, trial.number, own.progress.print)
