"""The ablation: what each trick of the champion is worth.

It trains the champion without each trick, and plain with each trick alone. Each arm has its own learning
rate, tuned with the same small budget and with separate seeds. Otherwise the table would measure the
rate, not the trick.
"""

import math
from collections.abc import Iterable, Mapping

from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.scores import rank_of
from lightning_tricks.search.keys import ABLATION, COMPARISON, ENTRY, PHASE, RATES, kept
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.study_state import ablation_of
from lightning_tricks.selection.ablation import (
    Ablation,
    Effect,
    Reference,
    Speed,
    level_for,
    speed,
    target,
    together,
    worth,
)
from lightning_tricks.selection.arms import AGAIN, STRONGEST, Arm, arms, pairs, rates, steadiest
from lightning_tricks.selection.arms import RATES as COUNT
from lightning_tricks.selection.intervals import Interval, mean_interval
from lightning_tricks.selection.terms import FEWEST
from lightning_tricks.study.session import Session, beside
from lightning_tricks.study.spending import spent_on
from lightning_tricks.tricks.recipe import Tricks
from lightning_tricks.verdict.reruns import Reruns, recipe_of


def ablate(search: Session, trial: int, seeds: int) -> Ablation | None:
    """Compare the champion with and without each trick, and plain with and without each trick.

    Args:
        search: the open session of the search.
        trial: number of the champion's trial.
        seeds: number of seeds for the comparison; they are separate from those that tune the rates.
            A budget may afford fewer.

    Returns:
        The result; None if the budget does not afford it.

    Raises:
        KeyboardInterrupt: if the user interrupts; the same command goes on.
    """
    before = ablation_of(search.study)
    within = search.spending.budget is not None
    if before is not None and before.trial == trial and (within or before.seeds == seeds):
        return before
    with beside(search, ABLATION) as own, Reruns(own) as reruns:
        if (found := _Comparison(search, reruns, trial, seeds).run()) is None:
            return None
        own.archive.describe(found.headline())
        search.study.set_user_attr(kept(ABLATION), found.plain())
    return found


class _Comparison:
    """One ablation, from the learning rates to the result."""

    def __init__(self, search: Session, reruns: Reruns, trial: int, seeds: int) -> None:
        self.reruns, self.own, self.trial, self.seeds = reruns, reruns.session, trial, seeds
        self.space, self.task = search.space, search.task
        self.champion = recipe_of(search, search.history[trial])
        self.plain: Tricks = self.space.nearest(self.task.tricks.plain())
        self.sign = 1 if self.task.mode == "max" else -1
        self.tuned: dict[str, FrozenTrial] = {}
        """Trial at the best learning rate, by the arm's name."""
        self.trials: dict[str, dict[int, FrozenTrial]] = {}
        """Compared trials, by the arm's name and the seed index."""

    def run(self) -> Ablation | None:
        """Train everything, and return the result; None if the budget does not afford it."""
        singles = arms(self.space, self.champion, self.plain)
        if not singles:
            return Ablation(self.trial, self.seeds, COUNT, level_for(1), (), ())
        references = {"champion": self.champion, "plain": self.plain}
        if not self._affords(len(references) + len(singles) + math.comb(STRONGEST, 2)):
            return None
        self._tune(references | {arm.name: arm.recipe for arm in singles})
        doubles = pairs(self.space, self.champion, self.plain, self._first_worth(singles))
        self._tune({arm.name: arm.recipe for arm in doubles})
        self._compare()
        compared = [*singles, *doubles]
        level = level_for(len(compared))
        effects = tuple(self._effect(arm, level) for arm in compared)
        known = tuple(self._reference(name) for name in references)
        return Ablation(self.trial, self.seeds, COUNT, level, known, effects)

    def _affords(self, count: int) -> bool:
        """Return whether the budget affords it for some number of recipes, perhaps with fewer seeds."""
        held, each = list(self.own.history), COUNT + AGAIN
        own = [t for t in held if f"(trial {self.trial})" in t.user_attrs[ENTRY] or _of_plain(t)]
        reused = sum(one.epochs for one in spent_on(own, repeats=1))
        epochs = self.own.spending.left(spent_on(held, repeats=1)) + reused
        trainings = epochs / self.task.epochs
        self.seeds = max(FEWEST, int(min(self.seeds, trainings // count - each)))
        if (total := count * (each + self.seeds)) > trainings:
            left = f"about {max(trainings, 0):.0f} are left of the budget"
            self.own.progress.print(f"no ablation: it needs {total} trainings, and {left}")
            return False
        self.own.progress.start_stage("ablation", total, held)
        return True

    def _entry(self, name: str) -> str:
        return name if name == "plain" else f"{name} (trial {self.trial})"

    def _tune(self, recipes: Mapping[str, Tricks]) -> None:
        """Train recipes once at several learning rates, and the best few rates again; note the best."""
        tried = {
            f"{self._entry(name)} · lr {_rate(at):g}": (name, at)
            for name, recipe in recipes.items()
            for at in rates(self.space, recipe)
        }
        once = self._trained({entry: at for entry, (_, at) in tried.items()}, 0)
        short = {name: self._best(t for e, t in once.items() if tried[e][0] == name) for name in recipes}
        contested = [entry for own in short.values() if len(own) > 1 for entry in own]
        twice = self._trained({entry: tried[entry][1] for entry in contested}, 1)
        for name, own in short.items():
            if own:
                self.tuned[name] = once[steadiest(own, self._signed(once), self._signed(twice))]

    def _trained(self, entries: Mapping[str, Tricks], seed_index: int) -> dict[str, FrozenTrial]:
        """Train recipes with one of the tuning seeds; return the complete trials."""
        (found,) = self.reruns.run(RATES, entries, [seed_index])
        return {entry: t for entry, t in found.items() if t.state == TrialState.COMPLETE}

    def _best(self, trials: Iterable[FrozenTrial]) -> list[str]:
        ranked = sorted(trials, key=lambda trial: rank_of(trial, self.task.mode))
        return [trial.user_attrs[ENTRY] for trial in ranked[:AGAIN]]

    def _signed(self, trials: Mapping[str, FrozenTrial]) -> dict[str, float]:
        return {entry: self.sign * float(t.value or 0.0) for entry, t in trials.items()}

    def _first_worth(self, singles: list[Arm]) -> dict[str, float]:
        """Return a rough worth of the champion's tricks, from the tuning seeds only."""
        best = {name: float(trial.value or 0.0) for name, trial in self.tuned.items()}
        return {
            arm.stages[0]: best["champion"] - best[arm.name]
            for arm in singles
            if arm.family == "leave one out" and {"champion", arm.name} <= best.keys()
        }

    def _compare(self) -> None:
        """Train all recipes at their best learning rates, with the same seeds."""
        recipes = {name: recipe_of(self.own, trial) for name, trial in self.tuned.items()}
        entries = {self._entry(name): recipe for name, recipe in recipes.items()}
        self._spare_seeds(len(entries))
        seeds = range(self.seeds)
        for seed_index, found in zip(seeds, self.reruns.run(COMPARISON, entries, seeds), strict=True):
            for name in recipes:
                if (trial := found[self._entry(name)]).state == TrialState.COMPLETE:
                    self.trials.setdefault(name, {})[seed_index] = trial

    def _spare_seeds(self, count: int) -> None:
        """Take fewer seeds if the tuning took longer than expected."""
        compared = [t for t in self.own.history if t.user_attrs[PHASE] == COMPARISON]
        reused = sum(one.epochs for one in spent_on(compared, repeats=1))
        left = self.own.spending.left(spent_on(self.own.history, repeats=1))
        trainings = (left + reused) / self.task.epochs
        self.seeds = max(FEWEST, int(min(self.seeds, trainings // count)))

    def _effect(self, arm: Arm, level: float) -> Effect:
        of = "plain" if arm.family == "add one in" else "champion"
        return Effect(
            arm.family,
            arm.stages,
            arm.trick,
            self._rate_of(arm.name),
            self._score(arm.name),
            self._worth(arm, level),
            self._speed(arm.name, of),
        )

    def _worth(self, arm: Arm, level: float) -> Interval | None:
        own = self._scores(arm.name)
        if arm.family == "add one in":
            return worth(own, self._scores("plain"), level, self.sign)
        whole = self._scores("champion")
        if arm.family == "leave one out":
            return worth(whole, own, level, self.sign)
        one, other = (self._scores(f"without {stage}") for stage in arm.stages)
        return together(whole, one, other, own, level, self.sign)

    def _reference(self, name: str) -> Reference:
        return Reference(name, self._rate_of(name), self._score(name), self._speed(name, name))

    def _scores(self, name: str) -> dict[int, float]:
        return {seed_index: float(t.value or 0.0) for seed_index, t in self.trials.get(name, {}).items()}

    def _score(self, name: str) -> Interval | None:
        scores = list(self._scores(name).values())
        return mean_interval(scores) if scores else None

    def _rate_of(self, name: str) -> float | None:
        return _rate(recipe_of(self.own, self.tuned[name])) if name in self.tuned else None

    def _speed(self, name: str, reference: str) -> Speed:
        return speed(self._curves(name), target(self._curves(reference)), self.sign)

    def _curves(self, name: str) -> list[list[float]]:
        found = [Outcome.read(trial) for trial in self.trials.get(name, {}).values()]
        return [outcome.curve(self.task.monitor) for outcome in found if outcome is not None]


def _of_plain(trial: FrozenTrial) -> bool:
    """Return whether a trial trained plain, which every champion's ablation compares with."""
    return str(trial.user_attrs[ENTRY]).split(" · ")[0] == "plain"


def _rate(recipe: Tricks) -> float:
    return float(getattr(recipe.optimizer, "lr", 0.0))
