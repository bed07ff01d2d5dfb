"""Shared by several tests: the variants of every stage, small networks and small data."""

import functools
import inspect
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import HealthCheck, settings
from mlflow.tracking import MlflowClient
from sklearn.datasets import load_digits
from torch import nn

import lightning_tricks
from lightning_tricks import InMemoryData, Split, Tricks, TricksModule
from lightning_tricks.space.trick import stages
from lightning_tricks.surgery.attach import DROPOUT, NORM
from lightning_tricks.task.backbones import Residual

# The time of an example says something about the machine only.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that run one after another, so that no process waits for them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


optimize = functools.partial(lightning_tricks.optimize, fuse="off")
"""Measured group sizes depend on what else runs, and the last bits of a score depend on them."""


def in_order(layers):
    """Return some layers, each with the modules that the tricks put before and after it."""
    found = []
    for layer in layers:
        before, after = layer._modules.get(DROPOUT), layer._modules.get(NORM)
        found += [one for one in (before, layer, after) if one is not None]
    return found


VARIANTS = [(stage, kind) for stage, options in stages(Tricks).items() for kind in options]


def variant(stage: str, kind: str, **fields: Any) -> Any:
    """Return a variant of a stage, with its defaults except for some fields."""
    return stages(Tricks)[stage][kind](**fields)


def mlp(inputs: int = 6, width: int = 8, classes: int = 3, depth: int = 2) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(inputs, width), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, classes))


def convnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 6),
        nn.ReLU(),
        nn.Linear(6, 3),
    )


class Demanding(nn.Sequential):
    """A network whose state holds more than tensors: a version, a count of passes, renamed keys."""

    _version = 2

    def __init__(self, *layers):
        super().__init__(*layers)
        self.passes, self.scale = 0, nn.Parameter(torch.ones(()))
        self.register_state_dict_post_hook(self._rename)
        self.register_load_state_dict_pre_hook(self._name_back)

    def forward(self, inputs):
        if self.training:
            self.passes += 1
        return self.scale * super().forward(inputs)

    @staticmethod
    def _rename(module, state_dict, prefix, local_metadata):
        state_dict[f"{prefix}factor"] = state_dict.pop(f"{prefix}scale")

    @staticmethod
    def _name_back(module, state_dict, prefix, local_metadata, *unused):
        state_dict[f"{prefix}scale"] = state_dict.pop(f"{prefix}factor")

    def get_extra_state(self):
        return {"passes": self.passes}

    def set_extra_state(self, state):
        self.passes = state["passes"]

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest):
        if local_metadata.get("version") != 2:  # as torchvision's MNASNet does
            raise ValueError("version should be 2")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


def samples(count: int, *shape: int, seed: int = 0, classes: int = 3) -> Split:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, *shape, generator=generator) * 3 + 5
    targets = torch.arange(count) % classes
    return Split(inputs, targets)


def small_data(*shape: int, batch_size: int = 8) -> InMemoryData:
    shape = shape or (6,)
    return InMemoryData(
        samples(24, *shape),
        samples(12, *shape, seed=1),
        samples(12, *shape, seed=2),
        batch_size=batch_size,
    )


def residual_convnet() -> nn.Sequential:
    """Return a network for `picture_data` in which every trick finds something to act on."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        Residual(nn.Conv2d(4, 4, 3, padding=1)),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(16, 6),
        nn.ReLU(),
        nn.Linear(6, 3),
    )


def picture_data() -> InMemoryData:
    """Return gray images of 8×8 bytes, of three classes."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(256, (48, 1, 8, 8), generator=generator, dtype=torch.uint8)
    splits = [Split(part, torch.arange(len(part)) % 3) for part in inputs.split([24, 12, 12])]
    return InMemoryData(*splits, batch_size=8)


def fit(
    tricks: Tricks, backbone: nn.Module, data: Any = None, epochs: int = 1, **options: Any
) -> TricksModule:
    """Train a module with a silent Trainer."""
    module = TricksModule(backbone, tricks)
    trainer(epochs, **options).fit(module, datamodule=data or small_data())
    return module


def trainer(epochs: int, **options: Any) -> pl.Trainer:
    silent = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    return pl.Trainer(max_epochs=epochs, **{**silent, **options})


@pytest.fixture(autouse=True)
def seeded() -> None:
    pl.seed_everything(0, verbose=False)


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def no_tracking_uri_is_left() -> Iterator[None]:
    """MLflow keeps a tracking URI set in the environment, and a study would take it from there."""
    yield
    mlflow.set_tracking_uri(None)
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="session")
def digits() -> InMemoryData:
    return InMemoryData.from_arrays(*load_digits(return_X_y=True))


@pytest.fixture(autouse=True, scope="session")
def quiet() -> None:
    # Two test workers with two threads each on two cores mostly wait for each other.
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """Return an MLflow database with its tables, which take seconds to create."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def with_store(empty_store, in_its_own_folder):
    """Put an MLflow database into the test's folder."""
    shutil.copy(empty_store, "mlflow.db")


@pytest.fixture
def without_mlflow(monkeypatch):
    """Run studies without MLflow in tests that ignore it: MLflow takes half of their time."""
    kept = inspect.unwrap(lightning_tricks.optimize).__kwdefaults__
    monkeypatch.setitem(kept, "tracking_uri", None)
