"""What is proposed."""

import itertools
import statistics

import optuna
import pytest
from conftest import mlp, small_data
from optuna.trial import TrialState

from lightning_tricks import Space, Task, Tricks, create_study, optimize, suggest
from lightning_tricks.module.tricks_module import accuracy
from lightning_tricks.search.pruners import PRUNERS
from lightning_tricks.search.samplers import KEPT, SAMPLERS, WHOLE, TrickSampler
from lightning_tricks.space.trick import stages

PAIRS = list(itertools.product(SAMPLERS, PRUNERS))


def shares(direction):
    """Return the share of stages that proposals have from the best trial: of changes, of wholes."""
    study = optuna.create_study(direction=direction, sampler=TrickSampler(0))
    space = Space(Tricks)
    study.enqueue_trial(space.params(Tricks()))
    searched = [stage for stage in stages(Tricks) if stage in space.searched()]
    found = {True: [], False: []}
    for number in range(80):
        trial = study.ask()
        record = suggest(trial, space)
        if number:
            same = [getattr(record, stage) == getattr(Tricks(), stage) for stage in searched]
            found[number % WHOLE == 0].append(statistics.mean(same))
        score = 1.0 if number == 0 else 0.5
        study.tell(trial, score if direction == "maximize" else -score)
    return statistics.mean(found[False]), statistics.mean(found[True])


def test_most_proposals_change_a_third_of_the_stages_of_the_best_trial():
    for direction in ("maximize", "minimize"):
        changed, whole = shares(direction)
        assert KEPT - 0.06 < changed < KEPT + 0.15  # TPE draws some of the same anew
        assert whole < changed - 0.2


class Died(BaseException):
    """As if the program had died."""


def deadly(after):
    """Return a metric that dies once."""
    calls = itertools.count()

    def metric(outputs, targets):
        if next(calls) == after:
            raise Died
        return accuracy(outputs, targets)

    return metric


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


def score(record, epoch):
    """Return a score that depends on the record and rises with the epochs, without training."""
    return len(record.optimizer.kind) + 3 * (record.normalization.kind == "batch") + epoch / 10


def objective(trial):
    record = suggest(trial, Tricks)
    for epoch in range(6):
        trial.report(score(record, epoch), epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return score(record, epoch)


def outcomes(study):
    return [(t.number, t.state, t.params, t.value) for t in study.trials]


@pytest.mark.parametrize(("sampler", "pruner"), [*PAIRS, ("tpe", optuna.pruners.HyperbandPruner(1, 6))])
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
    """A trial that lets something else happen before one of its parameters is drawn."""

    def __init__(self, trial, before, meanwhile):
        self.trial, self.left, self.meanwhile = trial, before, meanwhile

    def __getattr__(self, name):
        self.left -= 1
        if self.left == 0:
            self.meanwhile()
        return getattr(self.trial, name)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("before", [2, 4, 9])
def test_a_proposal_is_the_same_whatever_is_proposed_meanwhile(sampler, before):
    def propose(meanwhile):
        study = create_study("s", epochs=6, storage=None, sampler=sampler)
        study.optimize(objective, n_trials=WHOLE * 3)
        first, second = study.ask(), study.ask()
        suggest(Paused(first, before, lambda: meanwhile and suggest(second, Tricks)), Tricks)
        return first.params

    assert propose(meanwhile=True) == propose(meanwhile=False)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_several_threads_search_at_the_same_time(sampler):
    study = create_study("s", epochs=6, storage=None, sampler=sampler, pruner="hyperband")
    study.optimize(objective, n_trials=20, n_jobs=4)
    assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
