"""Load trained modules from their checkpoints, in other projects too."""

import subprocess
import sys
from typing import Annotated

import pytest
import torch
from conftest import mlp, optimize, samples, small_data, trainer
from mlflow.tracking import MlflowClient
from pydantic import Field
from test_checks import Own
from test_study import store
from test_study import task as tiny_task

from lightning_tricks import (
    InputError,
    Int,
    ModuleTricks,
    Tricks,
    TricksModule,
    create_study,
    load_with_tricks,
    recipe_of_champion,
    recipe_of_run,
    references,
    with_tricks,
    without_tricks,
)
from lightning_tricks.module.kept import keep
from lightning_tricks.tricks.recipe_types import import_of


class Wide(Tricks):
    """A recipe with its own field, as studies have them."""

    width: Annotated[int, Int(4, 32)] = Field(8, ge=1)


INPUTS = samples(5, 6).inputs


def saved(module, folder):
    runner = trainer(2, enable_checkpointing=True, default_root_dir=folder)
    runner.fit(module, datamodule=small_data())
    return runner.checkpoint_callback.best_model_path


def test_a_recipe_of_a_subclass_is_loaded_as_what_it_was(tmp_path):
    module = TricksModule(mlp(width=16), Wide(width=16))
    again = TricksModule.load_from_checkpoint(saved(module, tmp_path), backbone=mlp(width=16))
    assert again.tricks == module.tricks
    assert type(again.tricks) is Wide
    torch.testing.assert_close(again.eval()(INPUTS), module.eval()(INPUTS))


def test_a_function_that_needs_a_type_that_is_not_imported_is_told_in_a_line(tmp_path):
    keep([TricksModule(mlp(width=16), Wide(width=16))], Wide(width=16), tmp_path)
    made = load_with_tricks(tmp_path, lambda recipe: mlp(width=recipe.width))
    assert made.tricks == Wide(width=16)
    held = tmp_path / "module.json"
    held.write_text(held.read_text().replace("Wide", "Wider"))
    with (
        pytest.warns(UserWarning, match="not imported"),
        pytest.raises(InputError, match=r"needs a recipe of the type 'Wider'.*import it before"),
    ):
        load_with_tricks(tmp_path, lambda recipe: mlp(width=recipe.width))


def test_the_line_that_imports_a_type_is_one_that_can_be_run():
    assert import_of(Tricks) == ""
    assert import_of(Wide) == "from test_loading import Wide  # the type of the recipe\n"

    class Inside(Tricks):
        pass

    assert import_of(Inside).startswith("# First import or define Inside")


@pytest.mark.slow
def test_a_type_that_is_not_imported_is_not_imported_for_a_file(tmp_path):
    """Another project lacks this class: it gets the common fields, or passes the recipe itself."""
    path = saved(TricksModule(mlp(), Wide()), tmp_path)
    program = f"""
import torch
from torch import nn
import warnings
from lightning_tricks import Tricks, TricksModule
layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)]
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    loaded = TricksModule.load_from_checkpoint({path!r}, backbone=nn.Sequential(*layers))
print([str(one.message) for one in told if "has the type" in str(one.message)][0])
print(type(loaded.tricks) is Tricks)
layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)]
network = nn.Sequential(*layers)
print(TricksModule.load_from_checkpoint({path!r}, backbone=network, tricks=Tricks()).tricks == Tricks())
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    told, common, loaded = done.stdout.splitlines()
    assert told.startswith("the recipe has the type 'Wide' of 'test_loading', which is not imported")
    assert common == loaded == "True"


TUNED = ModuleTricks(
    averaging={"kind": "ema"}, dropout={"kind": "dropout"}, normalization={"kind": "group"}
)


def test_a_users_module_with_tricks_is_loaded_with_its_surgery(tmp_path):
    module = with_tricks(Own(), TUNED, monitor="own_loss", validation_loss="own_loss")
    path = saved(module, tmp_path)
    again = load_with_tricks(path, Own())
    assert isinstance(again, Own)
    assert again.tricks == TUNED
    torch.testing.assert_close(again.eval().network(INPUTS), module.eval().network(INPUTS))
    trainer(3).fit(again, datamodule=small_data(), ckpt_path=path, weights_only=True)
    assert again.trainer.current_epoch == 3


def test_without_tricks_it_is_of_the_users_own_class_and_trains_by_itself():
    module = with_tricks(Own(), TUNED, monitor="own_loss", validation_loss="own_loss")
    trainer(1).fit(module, datamodule=small_data())
    plain = without_tricks(module)
    assert type(plain) is Own
    assert not plain.training
    torch.testing.assert_close(plain.network(INPUTS), module.eval().network(INPUTS))
    assert not {"tricks", "_health", "_trained"} & set(vars(plain))
    trainer(1).fit(plain.train(), datamodule=small_data())  # with its class's own optimizer


def test_hyperparameters_that_are_objects_are_read_of_a_file_that_is_trusted_only(tmp_path):
    class Holding(Own):
        def __init__(self, thing):
            super().__init__()
            self.save_hyperparameters()

    module = with_tricks(Holding(Int(1, 2)), TUNED, monitor="own_loss", validation_loss="own_loss")
    path = saved(module, tmp_path)
    with pytest.raises(InputError, match="more than tensors and plain data: pass trusted=True"):
        load_with_tricks(path, Holding(Int(1, 2)))
    assert load_with_tricks(path, Holding(Int(1, 2)), trusted=True).tricks == TUNED


def test_what_is_no_such_checkpoint_is_told_in_a_line(tmp_path):
    class Fitted(Own):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    class Larger(Own):
        def __init__(self):
            super().__init__()
            self.network = mlp(width=9)

    path = saved(Fitted(), tmp_path / "plain")
    with pytest.raises(InputError, match="is no checkpoint of tricks"):
        load_with_tricks(path, Own())
    with pytest.raises(InputError, match="is no checkpoint of tricks"):
        load_with_tricks(tmp_path / "nothing.ckpt", Own())
    module = with_tricks(Own(), TUNED, monitor="own_loss", validation_loss="own_loss")
    path = saved(module, tmp_path / "tricks")
    with pytest.raises(InputError, match="the weights are of another module"):
        load_with_tricks(path, Larger())
    for wrong in ("Own", lambda tricks: None):
        with pytest.raises(
            InputError, match="the module must be a new one, or a function of the recipe"
        ):
            load_with_tricks(path, wrong)


def test_the_recipe_of_a_champion_comes_back_in_another_project(with_store, monkeypatch):
    study = create_study("tiny", storage=None)
    optimize(study, tiny_task(), n_trials=3, progress=False, workers="inline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    recipe = recipe_of_champion("tiny", "sqlite:///mlflow.db", alias="best")
    best = max(study.trials, key=lambda trial: trial.value or 0.0)
    assert recipe.model_dump() in [t.user_attrs["tricks:outcome"]["recipe"] for t in study.trials]
    assert best.user_attrs["tricks:outcome"]["epochs"]
    client = MlflowClient(store())
    run_id = client.get_model_version_by_alias("tiny", "best").run_id
    assert recipe_of_run(run_id, "sqlite:///mlflow.db") == recipe
    assert isinstance(TricksModule(mlp(), recipe), TricksModule)
    with pytest.raises(InputError, match="no model none@champion is registered"):
        recipe_of_champion("none", "sqlite:///mlflow.db")
    with pytest.raises(InputError, match="run 0123 holds no recipe"):
        recipe_of_run("0123", "sqlite:///mlflow.db")


def test_references_are_of_the_tricks_that_are_on_and_no_others():
    lines = references(Tricks(optimizer="lion"))
    assert "Chen" in lines
    assert "Kingma" not in lines
    assert "Ioffe" in lines
    assert references(Tricks.plain()) == ""
    entries = references(Tricks(), bibtex=True)
    assert entries.count("@") == len(references(Tricks()).splitlines())
    assert "@" in entries
    assert "kingma_ba_2015" in entries


def test_a_server_that_is_away_is_told_in_a_line():
    away = "http://127.0.0.1:9"
    for ask in (
        lambda: load_with_tricks("models:/tiny@champion", Own(), tracking_uri=away),
        lambda: recipe_of_champion("tiny", away),
        lambda: recipe_of_run("0" * 32, away),
    ):
        with pytest.raises(InputError, match="MLflow cannot be opened"):
            ask()
