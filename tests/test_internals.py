"""Private names of other packages, each used in one file: which one did an upgrade remove?"""

import ast
import functools
import importlib
from pathlib import Path

import optuna
import pytest
import pytorch_lightning as pl
import torch
from conftest import small_data, trainer
from optuna import samplers
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from torch import nn

import lightning_tricks
from lightning_tricks.flavors import FLAVORS
from lightning_tricks.module import lightning_internals
from lightning_tricks.module.lightning_internals import CURRENT_HOOK, begin_batches_anew
from lightning_tricks.search import optuna_internals
from lightning_tricks.search.storage.waiting import RetryingStorage, retrying
from lightning_tricks.surgery import torch_internals
from lightning_tricks.task.quiet import silent_trainer

PACKAGE = Path(lightning_tricks.__file__).parent
INTERNALS = ("optuna_internals", "lightning_internals", "torch_internals", "ray_driver")
PYTHON = {"_exit"}
"""A name of the standard library that is public despite its underscore."""


def trees():
    return {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def is_private(name):
    return name.startswith("_") and not name.endswith("__")


def defined(tree):
    """Return the private names that a file defines, also on its classes and objects."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store())
            ):
                yield name
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                yield name


OURS = {name for tree in trees().values() for name in defined(tree) if is_private(name)}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_private_names_of_others_are_used_in_the_files_for_them_only(path):
    if path.stem in INTERNALS:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            assert node.attr in OURS | PYTHON, f"line {node.lineno}: {node.attr}"


@pytest.fixture(params=["memory", "sqlite:///optuna.db"])
def study(request):
    storage = None if request.param == "memory" else request.param
    return optuna.create_study(storage=storage, study_name="internals")


def test_optuna_puts_a_running_trial_back_in_the_queue(study):
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    optuna_internals.requeue(study, trial)
    assert study.trials[0].state == TrialState.WAITING
    assert study.ask().number == 0


def two_numbers(trial):
    return trial.suggest_float("x", 0, 1), trial.suggest_categorical("kind", ["a", "b"])


SAMPLERS = {
    "random": lambda: samplers.RandomSampler(seed=0),
    "tpe": lambda: samplers.TPESampler(seed=0, n_startup_trials=3),
    "tpe in groups": lambda: samplers.TPESampler(
        seed=0, n_startup_trials=3, multivariate=True, group=True
    ),
    "gp": lambda: samplers.GPSampler(seed=0, n_startup_trials=3),
    "qmc": lambda: samplers.QMCSampler(seed=0),
    "nsga2": lambda: samplers.NSGAIISampler(seed=0, population_size=3),
    "grid": lambda: samplers.GridSampler({"x": [0.0, 0.5, 1.0], "kind": ["a", "b"]}, seed=0),
    "all": lambda: samplers.BruteForceSampler(seed=0),
    "fixed": lambda: samplers.PartialFixedSampler({"kind": "b"}, samplers.TPESampler(seed=0)),
}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("pruner", ["none", "hyperband"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_optuna_draws_the_same_for_a_trial_that_is_made_afterwards(name, pruner, tmp_path):
    def objective(trial):
        if name == "all":
            return trial.suggest_int("x", 0, 3), trial.suggest_categorical("kind", ["a", "b"])
        return two_numbers(trial)

    found = []
    for how in ("at once", "afterwards"):
        study = optuna.create_study(
            storage=f"sqlite:///{tmp_path / how}.db" if pruner == "none" else None,
            study_name="same",
            sampler=SAMPLERS[name](),
            pruner=optuna.pruners.HyperbandPruner() if pruner == "hyperband" else None,
        )
        for _ in range(6):
            if how == "at once":
                trial = study.ask()
                x, kind = objective(trial)
            else:
                trial, (x, kind) = optuna_internals.ask(study, study.sampler, objective, {"of": "ours"})
                assert study.trials[-1].user_attrs == {"of": "ours"}
                assert study.trials[-1].params == trial.params == {"x": x, "kind": kind}
                assert study.trials[-1].state == TrialState.RUNNING
            study.stop = lambda: None  # outside of Optuna's loop there is nothing to stop
            trial.report(x, 0)
            trial.should_prune()
            study.tell(trial, x + (kind == "a"))
        found.append([(t.number, t.params, t.value, t.intermediate_values) for t in study.trials])
    assert found[0] == found[1]


def test_optuna_knows_nothing_of_a_trial_that_was_not_drawn_whole(study):
    def die(trial):
        trial.suggest_float("x", 0, 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optuna_internals.ask(study, study.sampler, die, {})
    assert study.trials == []


def test_optuna_hands_out_first_what_waits(study):
    study.enqueue_trial({"x": 0.25, "kind": "b"})
    trial, drawn = optuna_internals.ask(study, study.sampler, two_numbers, {})
    assert (trial.number, drawn) == (0, (0.25, "b"))
    assert study.trials[0].state == TrialState.RUNNING
    study.enqueue_trial({"x": 0.75})

    def die(trial):
        trial.suggest_float("x", 0, 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optuna_internals.ask(study, study.sampler, die, {})
    assert study.trials[1].state == TrialState.WAITING
    assert optuna_internals.ask(study, study.sampler, two_numbers, {})[1][0] == 0.75


def test_optuna_tells_what_a_running_trial_reported(study):
    trial = study.ask()
    assert optuna_internals.last_reported(study, trial) == -1
    trial.report(0.5, 3)
    assert optuna_internals.last_reported(study, trial) == 3


def test_optuna_shows_its_storage_its_attributes_and_its_trials(study):
    study.set_user_attr("a", [1])
    study.tell(study.ask(), 1.0)
    assert isinstance(optuna_internals.storage_of(study), BaseStorage)
    assert optuna_internals.user_attrs_of(study)["a"] == [1]
    assert [t.number for t in optuna_internals.trials_of(study)] == [0]
    assert optuna_internals.contains(FloatDistribution(0, 1), 0.5)
    assert not optuna_internals.contains(FloatDistribution(0, 1), 1.5)


@pytest.mark.parametrize(
    "ask",
    [
        lambda shown, trial: optuna.samplers.TPESampler(n_startup_trials=1).sample_independent(
            shown, trial, "x", FloatDistribution(0, 1)
        ),
        lambda shown, trial: optuna.pruners.MedianPruner().prune(shown, trial),
    ],
    ids=["sampler", "pruner"],
)
def test_optuna_looks_at_the_trials_that_a_view_shows(study, ask):
    for score in (1.0, 2.0):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.report(score, 0)
        study.tell(trial, score)
    trial = study.ask()
    trial.report(3.0, 0)
    looks = []
    shown = optuna_internals.view(study, lambda: looks.append(1) or study.trials[:1])
    ask(shown, study.trials[2])
    assert looks == [1]
    assert [t.number for t in shown.get_trials()] == [0]


def test_a_retrying_storage_has_every_method_of_optunas():
    assert not RetryingStorage.__abstractmethods__
    public = {name for name in dir(BaseStorage) if not name.startswith("_")}
    for name in public:
        assert getattr(RetryingStorage, name) is not getattr(BaseStorage, name), name
    storage = retrying(optuna.storages.InMemoryStorage(), print, lambda: False)
    study = optuna.create_study(storage=storage)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    assert len(study.trials) == 3


class Small(pl.LightningModule):
    """Records what Lightning does to it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.set, self.first = [], []

    def __setattr__(self, name, value):
        self.__dict__.setdefault("set", []).append(name)
        super().__setattr__(name, value)

    def training_step(self, batch, batch_idx):
        if batch_idx == 0:
            self.first.append(batch[0].clone())
        return self.layer(batch[0]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_sets_the_name_of_the_hook_that_runs():
    small = Small()
    trainer(1).fit(small, small_data())
    assert CURRENT_HOOK in small.set


def test_lightning_draws_the_batches_of_an_epoch_again():
    class Again(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            torch.manual_seed(7)
            begin_batches_anew(trainer)

    small, data = Small(), torch.utils.data.TensorDataset(torch.randn(16, 6))
    for seed in (0, 1):
        torch.manual_seed(seed)
        loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
        trainer(1, callbacks=[Again()]).fit(small, loader)
    assert torch.equal(*small.first)


def test_torch_has_its_families_of_layers():
    assert issubclass(nn.ConvTranspose2d, torch_internals.Convolution)
    assert issubclass(nn.BatchNorm1d, torch_internals.BatchNormLayer)
    assert issubclass(nn.InstanceNorm2d, torch_internals.BatchOrInstanceNorm)
    assert issubclass(nn.Dropout2d, torch_internals.DropoutLayer)


def test_torch_works_on_many_tensors_at_once():
    def tensors():
        return [torch.tensor([3.0, 4.0]), torch.tensor([[1.0]])]

    def same(found, *expected):
        torch.testing.assert_close(list(found), [torch.tensor(values) for values in expected])

    internals = torch_internals
    same(internals.foreach_norm(tensors()), 5.0, 1.0)
    same(internals.foreach_add(tensors(), tensors(), alpha=2), [9.0, 12.0], [[3.0]])
    same(internals.foreach_mul(tensors(), 2.0), [6.0, 8.0], [[2.0]])
    for change, expected in (
        (lambda held: internals.foreach_add_(held, tensors()), ([6.0, 8.0], [[2.0]])),
        (lambda held: internals.foreach_mul_(held, 3.0), ([9.0, 12.0], [[3.0]])),
        (lambda held: internals.foreach_lerp_(held, tensors(), 0.5), ([3.0, 4.0], [[1.0]])),
        (
            lambda held: internals.foreach_copy_(held, internals.foreach_mul(held, 0.0)),
            ([0.0, 0.0], [[0.0]]),
        ),
    ):
        held = tensors()
        change(held)
        same(held, *expected)
    flat = internals.flatten(tensors())
    same([flat], [3.0, 4.0, 1.0])
    same(internals.unflatten(flat, tensors()), [3.0, 4.0], [[1.0]])


def test_a_state_keeps_the_versions_of_the_layers_that_it_is_loaded_into():
    state = nn.BatchNorm1d(2).state_dict()
    found = torch_internals.with_metadata_of(dict(state), nn.BatchNorm1d(2))
    assert found._metadata[""]["version"] == 2


@pytest.mark.parametrize("flavor", FLAVORS, ids=lambda flavor: flavor.trainer)
def test_trainers_have_the_callbacks_of_entry_points_which_are_read_once(flavor, monkeypatch):
    class Watching(flavor.package.Callback):
        pass

    class Installed:
        name = "watching"

        def load(self):
            return Watching

    read = []

    def entry_points(**given):
        read.append(given)
        return [Installed()]

    registry = importlib.import_module(f"{flavor.fabric}.utilities.registry")
    before = registry.entry_points
    monkeypatch.setattr(lightning_internals, "_entry_points", functools.cache(entry_points))
    trainers = [silent_trainer(flavor, accelerator="cpu") for _ in range(2)]
    assert read == [{"group": f"{flavor.trainer}.callbacks_factory"}]
    watching = [one for trainer in trainers for one in trainer.callbacks if isinstance(one, Watching)]
    assert len(set(watching)) == 2  # each has its own
    assert registry.entry_points is before
