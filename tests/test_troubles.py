"""What goes wrong around a study, and the messages about it."""

import multiprocessing
import os
import random
import warnings
from pathlib import Path

import optuna
import pytest
import pytorch_lightning as pl
import tiny_study
import torch
from conftest import mlp, optimize, small_data
from pytorch_lightning.callbacks import ModelCheckpoint
from test_process import Own
from test_study import run, store, task
from torch import nn

from lightning_tricks import (
    InputError,
    PruningCallback,
    Space,
    Task,
    Tricks,
    create_study,
    recipe_of_champion,
)
from lightning_tricks.search.studies import finished
from lightning_tricks.space.documents import read_yaml
from lightning_tricks.task.checks import check
from lightning_tricks.training.runner import Runner
from lightning_tricks.trial.job import Job
from lightning_tricks.tricks.recipe_types import recipe_of

pytestmark = pytest.mark.usefixtures("with_store")


def fitted(trial, epochs, saved=None):
    """Train with a pruning callback, from a checkpoint if given; return the last checkpoint's path."""
    keeper = ModelCheckpoint(dirpath="kept", filename=str(epochs), save_top_k=-1)
    callbacks = [PruningCallback(trial, "val/accuracy"), keeper]
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=epochs, callbacks=callbacks, accelerator="cpu", **silent)
    trainer.fit(Own(), datamodule=small_data(), ckpt_path=saved)
    return keeper.best_model_path


@pytest.mark.usefixtures("without_mlflow")
def test_a_fit_that_goes_on_from_a_checkpoint_goes_on_counting():
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
    trial = study.ask()
    path = fitted(trial, 2)
    fitted(trial, 4, path)
    assert sorted(study.trials[0].intermediate_values) == [0, 1, 2, 3]


def never(outputs, targets):
    return outputs.mean() * float("nan")


@pytest.mark.parametrize("what", ["monitor", "loss"])
def test_a_score_that_is_never_a_number_ends_the_study_soon(what, capsys):
    def make():
        options = {"metrics": {"accuracy": never}} if what == "monitor" else {"loss": never}
        return Task("tiny", small_data(), tiny_study.backbone, epochs=2, **options)

    assert tiny_study.main(make, ["--n-trials", "9", "--workers", "inline"]) == 2
    told = capsys.readouterr().err
    assert "none of the first 5 trials has a score" in told
    assert ("val/accuracy became nan" if what == "monitor" else "loss became nan") in told
    assert len(finished(create_study("tiny"))) == 5


class Choosy(nn.Module):
    """A network that cannot be fused if it has batch norm."""

    def __init__(self):
        super().__init__()
        self.layers = mlp()

    def forward(self, inputs):
        outputs = self.layers(inputs)
        normed = sum("Norm" in type(layer).__name__ for layer in self.modules())
        return outputs * (2 if normed and inputs.sum() > 0 else 1)


def test_trials_that_cannot_be_fused_are_remembered_by_shape():
    some = Task("choosy", small_data(), lambda tricks: Choosy(), epochs=1)
    runner, results = Runner(some), {}
    for first, recipe in enumerate((Tricks(), Tricks.plain(), Tricks())):
        jobs = [Job(10 * first + at, recipe, at) for at in range(2)]
        runner.train(jobs, lambda *unused: False, lambda job, got: results.update({job.number: got}))
    assert "data-dependent" in runner.refusals.of(Tricks())
    assert not runner.refusals.of(Tricks.plain())
    told = {number: result.warning for number, result in results.items() if result.warning}
    assert list(told) == [0]
    assert told[0].startswith("trials of its shape are trained one by one")


def begin(name, barrier, storage, errors):
    barrier.wait()
    try:
        create_study(name, storage=storage)
    except Exception as error:
        errors.put(repr(error))


def test_studies_that_begin_at_the_same_moment_make_the_tables_once():
    context = multiprocessing.get_context("fork")
    for attempt in range(3):
        barrier, errors = context.Barrier(4), context.Queue()
        storage = f"sqlite:///{Path.cwd()}/new-{attempt}.db"
        begun = [
            context.Process(target=begin, args=(f"s{n}", barrier, storage, errors)) for n in range(4)
        ]
        for process in begun:
            process.start()
        for process in begun:
            process.join()
        assert errors.empty(), errors.get()
        assert len(optuna.get_all_study_names(storage)) == 4


def test_a_network_of_random_layers_is_refused():
    some = Task("random", small_data(), lambda tricks: mlp(depth=random.randint(1, 4)), epochs=1)
    with pytest.raises(InputError, match="networks of different layers from one recipe"):
        check(some, Space(Tricks))


@pytest.mark.parametrize("value", ["1:30", "-0:59", "1:30:5.5"])
def test_a_number_to_the_base_of_sixty_is_refused(value):
    Path("space.yaml").write_text(f"pin: {{clipping.norm.theta: {value}}}")
    with pytest.raises(InputError, match=f"{value} is a base-60 number"):
        read_yaml("space.yaml")
    Path("space.yaml").write_text(f'pin: {{a: "{value}"}}')
    assert read_yaml("space.yaml") == {"pin": {"a": value}}


def test_what_would_be_waited_for_or_made_is_refused(capsys):
    os.mkfifo("pipe")
    for flags in (["--space", "pipe"], ["--checkpoints", "s3://bucket/x"], ["--storage", "pipe"]):
        assert run("--n-trials", "1", *flags) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not list(Path().glob("s3*"))


def test_the_folder_of_the_user_is_found(monkeypatch):
    home = Path("home")
    home.mkdir()
    monkeypatch.setenv("HOME", str(home.absolute()))
    assert run("--n-trials", "2", "--storage", "~/s.journal", "--checkpoints", "~/kept") == 0
    assert (home / "s.journal").exists()
    assert (home / "kept" / "tiny").is_dir()
    assert not list(Path().glob("~*"))


@pytest.mark.usefixtures("without_mlflow")
def test_a_timeout_holds_for_the_verdict_too(monkeypatch, capsys):
    monkeypatch.setenv("SLOW", "0.03")  # seconds per network
    study = create_study("tiny", storage="optuna.journal")
    options = {"n_trials": 3, "finalists": 1, "seeds": 3}
    optimize(study, tiny_study.task(), n_trials=3)
    summary = optimize(study, tiny_study.task(), timeout=0.2, **options)
    told = capsys.readouterr().err
    assert "time is up in the verdict: the same command continues it" in told
    assert summary.verdict is None
    assert optimize(study, tiny_study.task(), **options).verdict is not None


def test_a_champion_of_a_type_that_is_not_imported_comes_back_in_part():
    def local():
        class Sized(Tricks):
            width: int = 8

        return Sized

    study, some = (
        create_study("tiny", storage=None),
        Task("tiny", small_data(), lambda tricks: mlp(width=tricks.width), tricks=local(), epochs=1),
    )
    optimize(study, some, n_trials=2, progress=False)
    assert recipe_of_champion("tiny", store(), "best").width == 8
    data = {**Tricks(clipping="none").model_dump(), "width": 8}
    with pytest.warns(UserWarning, match=r"comes back as Tricks, without \['width'\]"):
        assert recipe_of(data, "elsewhere:Sized") == Tricks(clipping="none")


def test_a_journal_that_was_cut_off_is_gone_on_with_and_mlflow_agrees(capsys):
    assert run("--n-trials", "3") == 0
    journal = Path("optuna.journal")
    whole = journal.read_bytes()
    for share in (0.99, 0.95, 0.8, 0.6, 0.3):
        journal.write_bytes(whole[: int(share * len(whole))])
        assert run("--n-trials", "3") == 0
        capsys.readouterr()
        assert run("--check") == 0, (share, capsys.readouterr().out)


def test_inputs_of_a_wrong_shape_are_told_in_a_line(capsys):
    def make():
        return Task("tiny", small_data(1, 4, 4), lambda tricks: mlp(), epochs=1)

    assert tiny_study.main(make, ["--n-trials", "1"]) == 2
    assert "the backbone does not take inputs of shape" in capsys.readouterr().err


@pytest.mark.usefixtures("without_mlflow")
def test_warnings_are_as_they_were():
    before = list(warnings.filters)
    optimize(create_study("tiny", storage=None), task(), n_trials=1, progress=False)
    assert warnings.filters == before
    assert torch.is_grad_enabled()
