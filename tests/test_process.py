"""A study leaves its process unchanged, in whatever state it was and whatever the user's code raises."""

import asyncio
import logging
import os
import random
import signal
import warnings

import mlflow
import numpy as np
import pytest
import pytorch_lightning as pl
import tiny_study
import torch
from conftest import mlp, optimize, small_data
from test_study import children, run, store, task
from torch import nn

from lightning_tricks import ModuleTricks, Task, create_study
from lightning_tricks.study.signals import Signals
from lightning_tricks.tracking.agreement import differences

pytestmark = pytest.mark.usefixtures("with_store")


def looks():
    """Return the state of the process that a study must not change."""
    return {
        "torch's random state": torch.get_rng_state().tolist(),
        "NumPy's": str(np.random.get_state()),  # noqa: NPY002 - the state that users draw from
        "Python's": random.getstate(),
        "environment": dict(os.environ),
        "loggers": {
            name: (logging.getLogger(name).level, logging.getLogger(name).disabled)
            for name in (
                "mlflow",
                "alembic",
                "optuna",
                "pytorch_lightning",
                "lightning_fabric",
                "ray",
                "mine",
            )
        },
        "warnings": list(warnings.filters),
        "signals": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
        "determinism": torch.get_deterministic_debug_mode(),
        "tracking": mlflow.get_tracking_uri(),
    }


def changed(before):
    """Return the parts of the process state that differ from before."""
    now = looks()
    parted = {name: (before[name], now[name]) for name in now if before[name] != now[name]}
    if "environment" in parted:
        pairs = [set(held.items()) for held in parted["environment"]]
        parted["environment"] = pairs[0] ^ pairs[1]
    return parted


def failing(tricks):
    raise RuntimeError("no network")


@pytest.mark.parametrize("backbone", [tiny_study.backbone, failing])
def test_a_study_leaves_the_process_as_it_was(backbone, monkeypatch):
    logging.getLogger("mine").setLevel(logging.DEBUG)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    before = looks()
    some = Task("tiny", small_data(), backbone, epochs=1, trainer={"deterministic": True})
    try:
        optimize(create_study("tiny", storage=None), some, n_trials=2, finalists=1, seeds=3)
    except ValueError:
        assert backbone is failing
    assert changed(before) == {}


def test_every_public_look_at_mlflow_leaves_it_too():
    study = create_study("tiny", storage=None)
    optimize(study, task(), n_trials=2, progress=False)
    before = looks()
    assert differences(study, task(), store()) == []
    assert changed(before) == {}


def test_signals_of_a_script_are_its_own_again():
    mine = signal.signal(signal.SIGTERM, lambda *unused: None)
    try:
        with Signals().handled(print):
            assert signal.getsignal(signal.SIGTERM) is not mine
    finally:
        signal.signal(signal.SIGTERM, mine)


@pytest.mark.filterwarnings("ignore")  # autologging warns, and then records nothing
def test_autologging_records_nothing_of_a_study_and_is_on_again_afterwards():
    mlflow.set_tracking_uri(store())
    mlflow.autolog(silent=True, log_models=False)
    try:
        with mlflow.start_run() as mine:
            some = Task("tiny", small_data(), lambda tricks: Own(), tricks=ModuleTricks, epochs=2)
            optimize(create_study("tiny", storage=None), some, n_trials=2, progress=False)
            assert mlflow.active_run().info.run_id == mine.info.run_id
            assert not mlflow.get_run(mine.info.run_id).data.params
            trainer = pl.Trainer(max_epochs=1, logger=False, enable_checkpointing=False)
            trainer.fit(Own(), datamodule=small_data())
            assert mlflow.get_run(mine.info.run_id).data.params
    finally:
        mlflow.autolog(disable=True, silent=True)


class Own(pl.LightningModule):
    """A module with its own steps, one of which may raise an error."""

    error: BaseException | None = None
    after = 0

    def __init__(self):
        super().__init__()
        self.network, self.steps = mlp(), 0

    def training_step(self, batch, number):
        self.steps += 1
        if self.error is not None and self.steps > self.after:
            raise self.error
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch, number):
        self.log("val/accuracy", (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

    def test_step(self, batch, number):
        self.log("test/accuracy", (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


LAUNCHERS = {
    "slurm": {
        "SLURM_NTASKS": "4",
        "SLURM_JOB_NAME": "interactive",
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "1",
    },
    "sbatch": {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"},
    "torchrun": {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": "none",
    },
    "mpi": {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "PMI_SIZE": "4", "PMI_RANK": "1"},
    "lsf": {
        "LSB_JOBID": "1",
        "LSB_DJOB_RANKFILE": "none",
        "JSM_NAMESPACE_SIZE": "4",
        "JSM_NAMESPACE_RANK": "1",
    },
    "kubeflow": {
        "KUBERNETES_PORT": "tcp://1",
        "MASTER_ADDR": "m",
        "MASTER_PORT": "1",
        "WORLD_SIZE": "2",
        "RANK": "1",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_what_a_launcher_left_in_the_shell_changes_nothing(launcher, monkeypatch):
    for name, value in LAUNCHERS[launcher].items():
        monkeypatch.setenv(name, value)
    some = Task("tiny", small_data(), lambda tricks: Own(), tricks=ModuleTricks, epochs=1)
    study = create_study("tiny", storage=None)
    optimize(study, some, n_trials=3, progress=False)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert study.user_attrs["tricks:tests"]


RAISED = [
    SystemExit(3),
    StopIteration(),
    GeneratorExit(),
    asyncio.CancelledError(),
    KeyError("lr"),
    BaseException("x"),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["task", "backbone", "forward", "metric"])
def test_what_the_users_code_raises_first_is_told_in_a_line(place, error, capsys):
    def raises(*unused):
        raise error

    network = nn.Sequential(mlp())
    if place == "forward":
        network.forward = raises

    def make_task():
        if place == "task":
            raises()
        backbone = raises if place == "backbone" else lambda tricks: network
        metrics = {"accuracy": raises if place == "metric" else lambda outputs, targets: outputs.mean()}
        return Task("tiny", small_data(), backbone, epochs=1, metrics=metrics)

    assert tiny_study.main(make_task, ["--n-trials", "1"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert type(error).__name__ in told
    assert "test_process.py" in told
    assert {"task": "the task", "metric": "the metric 'accuracy'"}.get(place, "the backbone") in told


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_what_is_raised_in_training_fails_the_trial(error, monkeypatch):
    monkeypatch.setattr(Own, "error", error)
    monkeypatch.setattr(Own, "after", 2)
    some = Task("tiny", small_data(), lambda tricks: Own(), tricks=ModuleTricks, epochs=2)
    study = create_study("tiny", storage=None)
    with pytest.raises(ValueError, match=f"all failed, the last one with: .*{type(error).__name__}"):
        optimize(study, some, n_trials=3, progress=False)
    assert {trial.state.name for trial in study.trials} == {"FAIL"}
    assert {run_.info.status for run_ in children()[1].values()} == {"FAILED"}


def test_a_factory_that_returns_nothing_and_a_loss_of_many_numbers_are_told(capsys):
    assert tiny_study.main(lambda: None, ["--n-trials", "1"]) == 2
    assert "must return a Task (got None)" in capsys.readouterr().err

    def vector():
        loss = nn.CrossEntropyLoss(reduction="none")
        return Task("tiny", small_data(), tiny_study.backbone, epochs=1, loss=loss)

    assert tiny_study.main(vector, ["--n-trials", "1"]) == 2
    assert "loss must return a tensor of one number (got one of shape (12,))" in capsys.readouterr().err


def test_help_is_no_error(capsys):
    with pytest.raises(SystemExit, match="0"):
        run("--help")
