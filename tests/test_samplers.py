"""What the samplers propose."""

import itertools
import statistics

import optuna
import pytest
import search
from conftest import mlp, optimize, small_data
from optuna.distributions import CategoricalDistribution
from optuna.pruners import HyperbandPruner
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from lightning_tricks import Space, Task, Tricks, create_study, suggest
from lightning_tricks.errors import TakenOver
from lightning_tricks.module.tricks_module import accuracy
from lightning_tricks.search.pruners import PRUNERS
from lightning_tricks.search.sampling.effects import draw_effects
from lightning_tricks.search.sampling.proposal import CHANGED, KEPT
from lightning_tricks.search.sampling.samplers import SAMPLERS
from lightning_tricks.search.sampling.trick_sampler import TrickSampler
from lightning_tricks.space.trick import stages
from lightning_tricks.study.coordinator import MOST_REPEATS

PAIRS = list(itertools.product(SAMPLERS, PRUNERS))


def proposals(direction, space, count=40):
    """Return proposals of a search in which the first trial, the space's own recipe, stays the best."""
    study = optuna.create_study(direction=direction, sampler=TrickSampler(0))
    study.enqueue_trial(space.params(space.model()))
    for number in range(count):
        trial = study.ask()
        suggest(trial, space)
        study.tell(trial, (number == 0) if direction == "maximize" else -(number == 0))
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_proposal_changes_a_few_choices_of_the_best_trial(direction):
    best, *others = proposals(direction, Space(Tricks))
    choices = [name for name, value in best.items() if not isinstance(value, float)]
    changed = [sum(trial.get(name, best[name]) != best[name] for name in choices) for trial in others]
    assert set(changed) <= set(range(CHANGED + 1))
    assert statistics.mean(changed) > 1
    numbers = [name for name in best if name not in choices]
    kept = [trial[name] == best[name] for trial in others for name in numbers if name in trial]
    assert KEPT - 0.15 < statistics.mean(kept) < KEPT + 0.15


def test_what_has_one_stage_to_change_is_proposed_once():
    kinds = {stage: getattr(Tricks.plain(), stage).kind for stage in stages(Tricks)}
    best, *others = proposals("maximize", Space(Tricks).pin({**kinds, "optimizer": "adam"}))
    assert len({trial["optimizer.adam.lr"] for trial in others}) == len(others)
    assert set(best) == {"optimizer.adam.lr", "optimizer.adam.one_minus_beta1"}


@pytest.mark.usefixtures("without_mlflow")
def test_a_space_of_few_recipes_is_searched_to_its_end():
    """Each repeated proposal doubles the doubt, until something else is proposed."""
    pins = {stage: getattr(Tricks.plain(), stage) for stage in stages(Tricks)}
    del pins["scaling"], pins["initialization"]
    space = Space(Tricks).pin(pins)
    study = optuna.create_study(sampler=TrickSampler(0), direction="maximize")
    seen, repeats = set(), 0
    recipes = 1
    for name in ("scaling", "initialization"):
        recipes *= len(space.domains[name].extremes())
    while len(seen) < recipes // 2:
        trial = study.ask()
        recipe = suggest(trial, space)
        place = (recipe.scaling.kind, recipe.initialization.kind)
        repeats = repeats + 1 if place in seen else 0
        assert repeats < MOST_REPEATS
        seen.add(place)
        study.tell(trial, float(place == ("none", "torch")))


def finished(option, score=None):
    """Return a trial that chose an option, pruned if it has no score."""
    state = TrialState.PRUNED if score is None else TrialState.COMPLETE
    choices = {"stage": CategoricalDistribution(("a", "b"))}
    params = {"stage": option}
    return create_trial(state=state, value=score, params=params, distributions=choices)


def mean_effects(ended, running=(), direction=StudyDirection.MAXIMIZE):
    """Return the mean and the standard deviation of the effect of option a minus that of b."""
    drawn = [draw_effects(ended, running, direction, seed) for seed in range(200)]
    gains = [effects["stage", "a"] - effects["stage", "b"] for effects in drawn]
    return statistics.mean(gains), statistics.stdev(gains)


def test_effects_are_learned_from_scores_and_from_what_was_pruned():
    scored = [finished("a", 0.9), finished("b", 0.8), finished("a", 0.7), finished("b", 0.1)] * 3
    gain, doubt = mean_effects(scored)
    assert gain > 0.2
    assert mean_effects(scored, direction=StudyDirection.MINIMIZE)[0] < -0.2
    assert mean_effects([finished("a", 0.5)] * 4 + [finished("b")] * 4)[0] > 0.4
    far_off = [*scored[:-1], finished("b", -1e9)]
    assert mean_effects(far_off)[0] == pytest.approx(gain, abs=0.2)
    under_way = mean_effects(scored, [finished("a"), finished("b")] * 8)
    assert under_way[0] == pytest.approx(gain, abs=0.1)
    assert under_way[1] < 0.8 * doubt


def test_a_search_finds_more_than_chance_does():
    """A short run of `benchmarks/search.py`."""
    ours, chance = (
        [search.surface_gains("far", sampler, [40], seed)[0] for seed in range(4)]
        for sampler in (TrickSampler, lambda seed: RandomSampler(seed=seed))
    )
    assert statistics.mean(ours) > statistics.mean(chance) + 1


class Died(TakenOver):
    """Raised as if the program had died."""


def deadly(after):
    """Return a metric that dies once."""
    calls = itertools.count()

    def metric(outputs, targets):
        if next(calls) == after:
            raise Died
        return accuracy(outputs, targets)

    return metric


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.usefixtures("with_store")
@pytest.mark.parametrize(("sampler", "pruner"), PAIRS)
def test_every_sampler_runs_beside_every_pruner(sampler, pruner):
    metrics = {"accuracy": deadly(after=8)}
    task = Task("pair", small_data(), lambda tricks: mlp(), epochs=3, metrics=metrics)

    def go():
        study = create_study("pair", epochs=task.epochs, sampler=sampler, pruner=pruner)
        optimize(study, task, n_trials=4, workers="inline", progress=False)
        return study

    with pytest.raises(Died):
        go()
    states = {trial.state for trial in go().trials}
    assert states <= {TrialState.COMPLETE, TrialState.PRUNED}


def score(recipe, epoch):
    """Return a score that depends on the recipe and rises with the epochs, without training."""
    return len(recipe.optimizer.kind) + 3 * (recipe.normalization.kind == "batch") + epoch / 10


def objective(trial):
    recipe = suggest(trial, Tricks)
    for epoch in range(6):
        trial.report(score(recipe, epoch), epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return score(recipe, epoch)


def outcomes(study):
    return [(t.number, t.state, t.params, t.value) for t in study.trials]


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.parametrize(("sampler", "pruner"), [*PAIRS, ("tricks", HyperbandPruner(1, 6))])
def test_a_study_goes_on_as_if_it_had_not_been_interrupted(sampler, pruner):
    def go(storage, trials):
        options = {"epochs": 6, "storage": storage, "sampler": sampler}
        study = create_study("s", **options, pruner=pruner if isinstance(pruner, str) else "none")
        if not isinstance(pruner, str):
            study.pruner = pruner
        study.optimize(objective, n_trials=trials)
        return study

    storages = [optuna.storages.InMemoryStorage() for _ in range(2)]
    whole = go(storages[0], 14)
    go(storages[1], 6)
    assert outcomes(go(storages[1], 8)) == outcomes(whole)


class Paused:
    """A trial that calls a function before one of its parameters is drawn."""

    def __init__(self, trial, before, meanwhile):
        self.trial, self.left, self.meanwhile = trial, before, meanwhile

    def __getattr__(self, name):
        self.left -= 1
        if self.left == 0:
            self.meanwhile()
        return getattr(self.trial, name)


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.parametrize("sampler", sorted({*SAMPLERS} - {"tpe"}))  # Optuna's avoids running trials
@pytest.mark.parametrize("before", [2, 4, 9])
def test_a_proposal_is_the_same_whatever_is_proposed_meanwhile(sampler, before):
    def propose(meanwhile):
        study = create_study("s", epochs=6, storage=None, sampler=sampler)
        study.optimize(objective, n_trials=12)
        first, second = study.ask(), study.ask()
        suggest(Paused(first, before, lambda: meanwhile and suggest(second, Tricks)), Tricks)
        return first.params

    assert propose(meanwhile=True) == propose(meanwhile=False)


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_several_threads_search_at_the_same_time(sampler):
    study = create_study("s", epochs=6, storage=None, sampler=sampler, pruner="hyperband")
    study.optimize(objective, n_trials=20, n_jobs=4)
    assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
