"""The comparison of the best finalist with the incumbent, over fresh seeds."""

from collections.abc import Mapping, Sequence

from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.search.keys import REPORT, SEED_INDEX, SELECTION
from lightning_tricks.selection.crossed import crossed_interval, seeds_to_tell
from lightning_tricks.selection.halving import Halving
from lightning_tricks.selection.intervals import Interval
from lightning_tricks.selection.looks import error_of, levels, looks_up_to
from lightning_tricks.selection.result import BASELINE, ENSEMBLE, Gain, Row, incumbent_of, simplicity
from lightning_tricks.selection.terms import FEWEST, Terms
from lightning_tricks.tricks.recipe import Tricks
from lightning_tricks.verdict.allowance import Allowance
from lightning_tricks.verdict.model_scores import ModelScores, Values
from lightning_tricks.verdict.reruns import Reruns

ONE_SIDED = 0.90
"""Level of a two-sided interval; its lower bound alone holds with 95% probability."""


class Comparison:
    """Chooses the candidate on some seeds, and compares it with the incumbent on other seeds.

    Args:
        reruns: the reruns of the verdict's study.
        recipes: the recipes by name; first those that may become the candidate.
        terms: the terms that the user set.
        allowance: how many trainings it may take.
        tried: number of recipes in the search with a score, also of pruned trials: pruning chooses, too.
        before: number of earlier verdicts of the study.
    """

    def __init__(
        self,
        reruns: Reruns,
        recipes: Mapping[str, Tricks],
        terms: Terms,
        allowance: Allowance,
        tried: int,
        before: int,
    ) -> None:
        self.reruns, self.own, self.recipes, self.terms = reruns, reruns.session, recipes, terms
        self.tried, self.before = tried, before
        self.scores = ModelScores(self.own)
        self.sign = 1 if self.own.task.mode == "max" else -1
        self.allowance = allowance
        self.trained: dict[int, FrozenTrial] = {}
        """All trials that were asked for, by number."""
        self.incumbent = incumbent_of(recipes)
        """Name of the recipe that the user already has."""
        rivals = [name for name in list(recipes)[: terms.finalists] if name != self.incumbent]
        self.halving = Halving(rivals, allowance.choosing, self.own.task.mode == "max")
        self.reports: dict[str, dict[int, FrozenTrial]] = {}
        """Complete trials of the comparison, by the recipe's name and the seed index."""
        self.compared_seeds = self._planned_seeds = self._chose = 0
        """Number of compared seeds; the number planned; number of trainings that chose the candidate."""
        self._candidate: str | None = None
        """Name of the recipe that is compared with the incumbent; None before it is chosen."""

    @property
    def most_trainings(self) -> int:
        """Maximum number of trainings in total."""
        left = self._left() - (0 if self.compared_seeds else self.halving.most)
        seeds = max(int(left - self._shown_only) // self._compared_recipes, self.terms.seeds)
        return self.halving.most + self._compared_recipes * seeds + self._shown_only

    @property
    def budget(self) -> int:
        """Number of trainings that it could take; under a study's budget, those that repeat it."""
        if self.terms.within:
            return self._chose + self._compared_recipes * self._planned_seeds + self._shown_only
        return len(self.trained) + int(self._left())

    @property
    def spent(self) -> int:
        """Number of trainings so far that were trained to their end."""
        return self.halving.spent + sum(map(len, self.reports.values()))

    def choose(self) -> str | None:
        """Train the finalists until one is left; return it, or None if no trial was complete."""
        done = 0
        while seeds := self.halving.seeds():
            running = {name: self.recipes[name] for name in self.halving.running}
            for found in self._run(SELECTION, running, range(done, done + seeds)):
                complete = {n: t for n, t in found.items() if t.state == TrialState.COMPLETE}
                gone = self.halving.add({n: float(t.value or 0.0) for n, t in complete.items()})
                self._tell(gone, "did not finish training")
            self._tell(self.halving.drop(), "is behind")
            done += seeds
        self._chose = len(self.trained)
        return self.halving.best

    def _tell(self, names: Sequence[str], why: str) -> None:
        for name in names:
            self.own.progress.print(f"verdict: {name} {why} and is dropped")

    def train(self, names: Sequence[str], seeds: int) -> None:
        """Train recipes over the first seeds of the comparison; skip what is already trained."""
        wanted = {name: self.recipes[name] for name in names if name in self.recipes}
        for seed_index, found in enumerate(self._run(REPORT, wanted, range(seeds))):
            for name, trial in found.items():
                if trial.state == TrialState.COMPLETE:
                    self.reports.setdefault(name, {})[seed_index] = trial

    def _run(
        self, phase: str, recipes: Mapping[str, Tricks], seeds: Sequence[int]
    ) -> list[dict[str, FrozenTrial]]:
        found = self.reruns.run(phase, recipes, seeds)
        self.trained |= {trial.number: trial for of_seed in found for trial in of_seed.values()}
        return found

    def _left(self) -> float:
        """Return the number of trainings that are left."""
        return self.allowance.left(list(self.trained.values()))

    def trials(self, name: str, seeds: int | None = None) -> list[FrozenTrial]:
        """Return the complete trials of a recipe, seed by seed.

        Args:
            name: the recipe's name.
            seeds: number of first seeds to return; None for all.
        """
        found = sorted(self.reports.get(name, {}).values(), key=lambda t: int(t.user_attrs[SEED_INDEX]))
        return [t for t in found if seeds is None or t.user_attrs[SEED_INDEX] < seeds]

    def compare(self, candidate: str) -> tuple[Gain | None, float]:
        """Add seeds until the budget is spent, or the interval is narrower than a margin.

        Only the interval's width stops this, never its position, so the estimate has no bias.

        Returns:
            The candidate's gain (None if the two cannot be compared) and the margin.
        """
        self._candidate = candidate
        looks = looks_up_to(self.terms.seeds, self._most_seeds())
        self._look(candidate, looks[0])
        self._settle_samples(candidate)
        error = error_of(self.before) / (1 if self.scores.fresh else max(self.tried, 1))
        margin, gain = self.terms.margin or self._default_margin(), None
        if not self.terms.stops_by_width:
            looks = [self._spend(candidate)]
        self._planned_seeds = looks[-1]
        for look, level in zip(looks, levels(looks, error), strict=True):
            self._look(candidate, min(look, self._most_seeds()))
            if (values := self.differences(candidate, self.incumbent)) is None:
                return None, margin
            gain = self._gain(values, level)
            half = gain.interval.half_width
            if self.terms.stops_by_width and half is not None and half <= margin:
                break
        return gain, margin

    def _spend(self, candidate: str) -> int:
        """Add seeds until the budget is spent; return their number.

        What is left is computed again each time that the seeds have doubled, because a training may
        take longer or shorter than expected.
        """
        while (most := self._most_seeds()) > self.compared_seeds:
            more = self._compared_recipes * (most - self.compared_seeds) + self._shown_only
            self.own.progress.total = self.own.progress.done + more
            self._look(candidate, min(most, 2 * self.compared_seeds))
            if self.differences(candidate, self.incumbent) is None:  # scoring takes time, too
                break
        return self.compared_seeds

    def _look(self, candidate: str, seeds: int) -> None:
        """Train both recipes over the first seeds."""
        if seeds > self.compared_seeds:
            self.train([self.incumbent, candidate], seeds)
            self.compared_seeds = seeds

    def _settle_samples(self, candidate: str) -> None:
        """Decide, with the first models, which samples can compare the two recipes."""
        # Restoring the best epoch uses the validation samples to choose it.
        ends = (
            self.recipes[name].stopping for name in (self.incumbent, candidate) if name in self.recipes
        )
        self.scores.validates &= all(stopping.neutral for stopping in ends)
        self.scores.check_test_split([*self.trials(self.incumbent), *self.trials(candidate)])

    def _most_seeds(self) -> int:
        """Return the number of compared seeds that the budget affords."""
        untrained = self._shown_only + (self._compared_recipes - 2) * self.compared_seeds
        more = max(int(self._left() - untrained) // self._compared_recipes, 0)
        return max(self.compared_seeds + more, self.terms.seeds)

    @property
    def _compared_recipes(self) -> int:
        return 3 if self.terms.prefer_simple else 2

    @property
    def _shown_only(self) -> int:
        """Number of trainings of recipes that are shown, but not compared."""
        shown = {"plain", BASELINE} - {self.incumbent, self._candidate}
        return FEWEST * len(shown & set(self.recipes))

    def _default_margin(self) -> float:
        """Return half the standard deviation of the incumbent's score over seeds."""
        trials = self.trials(self.incumbent, self.terms.seeds)
        if len(trials) < 2:
            return 0.0
        return 0.5 * float(self.scores.compared(trials).mean(1).std(ddof=1))

    def differences(self, name: str, other: str) -> Values | None:
        """Return how much better one recipe is than another, by seed and block of samples.

        Returns:
            An array of shape (seeds, blocks), higher is better; None if a trial of `name` is not
            complete, or too few trials of `other` are.
        """
        mine, theirs = self.reports.get(name, {}), self.reports.get(other, {})
        both = sorted(mine.keys() & theirs.keys())
        if len(mine) < self.compared_seeds or len(both) < FEWEST:
            return None
        values = self.scores.compared([*(mine[d] for d in both), *(theirs[d] for d in both)])
        found: Values = self.sign * (values[: len(both)] - values[len(both) :])
        return found

    def _gain(self, values: Values, level: float) -> Gain:
        further = seeds_to_tell(values, 1 - error_of(self.before + 1))
        more = None if further is None else max(further - len(values), 1)
        samples = self.scores.samples if values.shape[1] > 1 else None
        found = crossed_interval(values, level)
        return Gain(
            found,
            self.scores.metric,
            len(values),
            samples,
            not self.scores.fresh,
            self.scores.splits,
            more,
        )

    def simpler(self, name: str, margin: float) -> str | None:
        """Return a simpler recipe that is not worse than a given one by more than a margin.

        It tests the best finalist with fewer tricks on, over the same seeds, by the lower bound of a
        one-sided 95% interval.
        """
        least = simplicity(self.recipes[name])
        rivals = [n for n in self.halving.names if n != name and simplicity(self.recipes[n]) < least]
        if not rivals or not self.compared_seeds:
            return None
        best = min(rivals, key=self.halving.rank)
        self.train([best], self.compared_seeds)
        if (values := self.differences(best, name)) is None:
            return None
        low = crossed_interval(values, ONE_SIDED).low
        return best if low is not None and low > -margin else None

    def ensemble_gain(self, name: str) -> Interval | None:
        """Return how much better a recipe's ensemble is than the incumbent's, over samples.

        It is measured on the test split, or on a validation split that all seeds share. None if there
        is neither.
        """
        if not self.scores.tests and self.own.task.splits_vary:
            return None
        split = "test" if self.scores.tests else "val"
        mine, theirs = (
            self.scores.together(split, self.trials(each, self.terms.seeds))
            for each in (name, self.incumbent)
        )
        if mine is None or theirs is None or mine.shape != theirs.shape:
            return None
        return crossed_interval(self.sign * (mine - theirs))

    def table(self, names: Sequence[str], together: Sequence[str]) -> dict[str, Row]:
        """Return the rows of some recipes, followed by those of some ensembles."""
        rows = {name: self.scores.row(self.trials(name)) for name in names if name in self.recipes}
        for name in together:
            row = self.scores.ensemble_row(self.trials(name, self.terms.seeds))
            if row is not None:
                rows[f"{name}{ENSEMBLE}"] = row
        return rows
