"""Everything that ranks trials ranks them the same way."""

import math
from pathlib import Path

import optuna
import pytest
import torch
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from lightning_tricks import Tricks, scores
from lightning_tricks.search.outcomes import Outcome, best_of, with_weights
from lightning_tricks.search.sampling.samplers import SAMPLERS
from lightning_tricks.study.folder import StudyFolder
from lightning_tricks.study.history import History
from lightning_tricks.trial.result import Epoch, Result


@pytest.mark.parametrize(
    ("monitor", "tested"),
    [("val/loss", "test/loss"), ("val_loss", "test_loss"), ("f1", "test/f1"), ("value", "test/value")],
)
def test_the_test_splits_metric_is_called_as_the_validation_splits(monitor, tested):
    assert scores.test_name(monitor) == tested


def outcome(score, *losses, name="val/loss"):
    epochs = [Epoch(number, score, {name: loss}) for number, loss in enumerate(losses)]
    return Outcome.of(Tricks(), 0, Result("complete", epochs))


def study_of(*outcomes, direction="maximize", sampler=None):
    """Return a study of trials with these outcomes; each trial has its number as its parameter."""
    study = optuna.create_study(direction=direction, sampler=sampler)
    for number, ended in enumerate(outcomes):
        trial = create_trial(
            value=ended.score,
            params={"x": float(number), "y": float(number)},
            distributions={name: FloatDistribution(0, 100) for name in ("x", "y")},
            user_attrs={"tricks:outcome": ended.__dict__},
        )
        study.add_trial(trial)
    return study


TIED = [outcome(0.9, 0.1), outcome(1.0, 0.1, 0.5), outcome(1.0, 0.9, 0.2), outcome(1.0, 0.2)]


def test_of_equal_scores_the_lower_loss_of_the_last_epoch_is_the_best_then_the_earlier():
    assert best_of(study_of(*TIED).trials, "max").number == 2
    assert best_of(study_of(*TIED[1:], TIED[0], direction="minimize").trials, "min").number == 3


@pytest.mark.parametrize("unknown", [outcome(1.0, math.nan), outcome(1.0, 0.1, name="mine")])
def test_a_trial_whose_loss_is_not_known_is_the_last_of_its_equals(unknown):
    assert best_of(study_of(unknown, TIED[1], unknown).trials, "max").number == 1
    assert best_of(study_of(unknown, unknown).trials, "max").number == 0


def test_a_history_is_in_the_order_of_numbers_whichever_trial_ended_first():
    history = History("max")
    for trial in reversed(study_of(*TIED).trials):
        history.add(trial)
    assert [trial.number for trial in history] == [0, 1, 2, 3]


def test_the_folder_keeps_the_same_trials():
    folder = StudyFolder(Path("folder"), 2, "max")
    folder.create()
    for number, ended in enumerate(TIED):
        folder.save_weights(number, ended, lambda: {"w": torch.zeros(1)}, reference=number == 0)
    assert {path.name for path in Path("folder").glob("*.pt")} == {
        f"trial-{number:05d}.pt" for number in (0, 2, 3)
    }


def test_a_folder_that_is_opened_again_knows_whose_weights_it_holds():
    folder = StudyFolder(Path("folder"), 1, "max")
    folder.create()
    folder.save_weights(2, TIED[2], lambda: {"w": torch.zeros(1)})
    again = StudyFolder(Path("folder"), 1, "max")
    again.rank(*with_weights(study_of(*TIED).trials))
    again.save_weights(4, TIED[1], lambda: {"w": torch.zeros(1)})
    assert again.load_weights(2) is not None
    assert again.load_weights(4) is None


def test_the_sampler_changes_the_same_best_trial():
    study = study_of(*TIED, sampler=SAMPLERS["tricks"](0))
    kept = set()
    for _ in range(12):
        trial = study.ask()
        kept |= {trial.suggest_float(name, 0, 100) for name in ("x", "y")}
        study.tell(trial, state=TrialState.FAIL)
    assert 2.0 in kept
    assert not {0.0, 1.0, 3.0} & kept
