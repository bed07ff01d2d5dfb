"""What is proposed."""

import statistics

import optuna

from lightning_tricks import Space, Tricks, suggest
from lightning_tricks.samplers import KEPT, WHOLE, TrickSampler
from lightning_tricks.space import stages


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
