import optuna
import pytest
from conftest import mlp, small_data, trainer
from optuna.pruners import BasePruner

from lightning_tricks import InputError, PruningCallback, Tricks, TricksModule, suggest


class PruneAfter(BasePruner):
    def __init__(self, step):
        self.step = step

    def prune(self, study, trial):
        return trial.last_step >= self.step


def objective(monitor="val/accuracy", epochs=5, **options):
    def run(trial):
        tricks = suggest(trial, Tricks)
        module = TricksModule(mlp(), tricks)
        runner = trainer(epochs, callbacks=[PruningCallback(trial, monitor)], **options)
        runner.fit(module, datamodule=small_data())
        return runner.callback_metrics[monitor].item()

    return run


def test_anyones_objective_is_pruned_as_pruned_with_every_report():
    study = optuna.create_study(pruner=PruneAfter(2), sampler=optuna.samplers.RandomSampler(0))
    study.enqueue_trial({"optimizer": "adam"})
    study.optimize(objective(), n_trials=1)
    (trial,) = study.trials
    assert trial.state == optuna.trial.TrialState.PRUNED
    assert list(trial.intermediate_values) == [0, 1, 2]


def test_several_validations_in_an_epoch_are_all_reported():
    study = optuna.create_study(pruner=optuna.pruners.NopPruner())
    study.sampler = optuna.samplers.RandomSampler(0)
    study.enqueue_trial({"stopping": "none"})
    study.optimize(objective(epochs=2, val_check_interval=0.5), n_trials=1)
    assert list(study.trials[0].intermediate_values) == [0, 1, 2, 3, 4, 5]


def test_a_misspelt_monitor_is_an_error():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    with pytest.raises(InputError, match="'val/acc' is never logged"):
        study.optimize(objective(monitor="val/acc"), n_trials=1)
