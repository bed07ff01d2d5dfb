"""`Task`: what the user brings to a study."""

import copy
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from lightning_tricks.data.batches import batch_size_of, with_batch_size
from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.data.loaders import LoaderData, ModuleData, data_module
from lightning_tricks.errors import InputError, check_name, shown, user_code, whole_number
from lightning_tricks.flavors import adapt, check_one_flavor, flavor_of, is_lightning_module
from lightning_tricks.module.conversion import with_tricks
from lightning_tricks.module.measures import Measure, accuracy, mode_of
from lightning_tricks.module.tricks_module import TricksModule
from lightning_tricks.scores import Mode
from lightning_tricks.seeds import seed_generators
from lightning_tricks.surgery.unfit import check_fit
from lightning_tricks.surgery.watch import watch
from lightning_tricks.task import data_facts, fingerprint
from lightning_tricks.task.quiet import quiet
from lightning_tricks.task.watching import Watched, makes_new, prepare, structure_of, watch_training
from lightning_tricks.tricks.recipe import ModuleTricks, Tricks
from lightning_tricks.tricks.scaling import Cast, takes_tokens

SAMPLES = 4
"""Number of samples for a rehearsal."""
WATCHED = 8
"""Maximum number of samples passed through a network to watch it: few may leave a branch idle."""
_BY_NAME: Any = "by name"


@dataclass(frozen=True)
class Task:
    """A network, data, a loss, a metric and a budget: everything a trial needs except its tricks.

    Args:
        name: the name of the study, the MLflow experiment and the registered model.
        data: the splits: a Lightning data module, or `DataLoader`s, (train, validation) or (train,
            validation, test); None if a LightningModule has its own loaders.
        backbone: a function of a recipe that makes the network, or that makes a LightningModule with
            its own forward, steps and loss (then `loss` and `metrics` are not used).
        tricks: the type of the recipes, `Tricks` or a subclass: the search space.
        epochs: the full budget of a trial.
        baseline: the recipe that a study begins with; by default `tricks()`. Its kinds that are not
            searched stay the same in all trials. `Tricks.fine_tuning()` keeps the weights and the
            norms of a pretrained network.
        monitor: the metric that ranks trials, by its logged name.
        mode: "min" if less of it is better, "max" if more is; by default what torchmetrics or its name
            says, else "max", with a note.
        validation_loss: the metric that the plateau schedule follows. By default it is the monitor if
            less of it is better; else `val/loss`, or a similar name that a LightningModule logs, such
            as `val_loss`.
        loss: a mean over samples, from outputs and targets.
        metrics: further means over samples, or torchmetrics metrics, by name.
        trainer: further arguments of Lightning's Trainer, such as `precision="bf16-mixed"` or
            `accumulate_grad_batches=4`.
        callbacks: further callbacks; each trial gets its own copies.
        logger: a logger; each trial gets its own copy. By default nothing is logged.
        channels_last: whether images and convolutions use torch's channels-last memory format.
        compiled: whether `torch.compile` compiles the network.
        repeats: the number of trainings of one trial, at the same time. Each has its own seed and, if
            the data were given whole, its own validation split. The score is their mean.
        own_splits: whether each seed draws its own training and validation samples, if the data were
            given whole. The test split stays the same. The trials of a verdict use this.
    """

    name: str
    data: Any
    backbone: Callable[[Any], nn.Module]
    tricks: type[Tricks] = Tricks
    epochs: int = 20
    baseline: Tricks | None = None
    monitor: str = "val/accuracy"
    mode: Mode = _BY_NAME
    validation_loss: str | None = None
    loss: Measure = F.cross_entropy
    metrics: Mapping[str, Measure] = field(default_factory=lambda: {"accuracy": accuracy})
    trainer: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Sequence[pl.Callback] = ()
    logger: Any = None
    channels_last: bool = False
    compiled: bool = False
    repeats: int = 1
    own_splits: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)
        for name in ("epochs", "repeats"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), 1))
        if self.data is None:
            object.__setattr__(self, "data", ModuleData(lambda: self.make(self.reference())))
        object.__setattr__(self, "data", data_module(self.data))
        if not (isinstance(self.tricks, type) and issubclass(self.tricks, Tricks)):
            raise InputError(f"tricks must be Tricks or a subclass of it (got {self.tricks!r})")
        if self.baseline is not None and type(self.baseline) is not self.tricks:
            raise InputError(
                f"the baseline must be a recipe of {self.tricks.__name__}, as the trials' are "
                f"(got {type(self.baseline).__name__})"
            )
        if taken := {"max_epochs", "callbacks", "logger"} & set(self.trainer):
            raise InputError(
                f"trainer must leave {sorted(taken)} to the study: epochs, callbacks and logger are "
                "arguments of the task"
            )
        if self.trainer.get("gradient_clip_val") is not None:
            value = self.trainer["gradient_clip_val"]
            raise InputError(
                "clipping is a trick: leave gradient_clip_val out of trainer, and pin clipping to "
                f"{{'kind': 'norm', 'theta': {value}}} instead"
            )
        if self.mode == _BY_NAME:
            object.__setattr__(self, "mode", mode_of(self.monitor, self.metrics) or "max")
        if self.mode not in ("min", "max"):
            raise InputError(f"mode must be 'min' or 'max' (got {self.mode!r})")

    def __repr__(self) -> str:
        return (
            f"Task({self.name!r}, {shown(self.data)}, {self.tricks.__name__}, {self.epochs} epochs, "
            f"{self.mode} {self.monitor})"
        )

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Optuna's name for the mode."""
        return "maximize" if self.mode == "max" else "minimize"

    @functools.cached_property
    def plateau(self) -> str:
        """The metric that the plateau schedule follows."""
        if self.validation_loss or self.mode == "min":
            return self.validation_loss or self.monitor
        logged = self.watched(self.reference()).logged
        guesses = [name for name in logged if re.match(r"val.*loss", name)]
        return min(guesses, key=len) if guesses and "val/loss" not in logged else "val/loss"

    @functools.cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What must be the same for two scores to be comparable, in addition to the task's name.

        It is computed once and copied with the task.
        """
        return {
            "data": fingerprint.of_data(self.data, self.batch),
            "backbone": f"{fingerprint.of_function(self.backbone)} {self._layers()}",
            "loss": fingerprint.of_function(self.loss),
            "metrics": {name: fingerprint.of_function(f) for name, f in self.metrics.items()},
            "trainer": fingerprint.of_settings({**self.trainer, **self._beside()}),
            "channels_last": self.channels_last,
            "compiled": self.compiled,
        }

    def reference(self) -> Tricks:
        """Return the recipe that a study begins with."""
        return self.tricks() if self.baseline is None else self.baseline

    def yours(self) -> Tricks | None:
        """Return the recipe of the user's unchanged LightningModule; None if it cannot train so."""
        if not issubclass(self.tricks, ModuleTricks):
            return None
        seen = self.watched(self.reference())
        return self.tricks.yours() if seen.trains else None

    def once(self) -> "Task":
        """Return this task without repeats."""
        return self if self.repeats == 1 else replace(self, repeats=1)

    def rerun(self) -> "Task":
        """Return the task for after a search: each training has its own seed and split."""
        return replace(self, repeats=1, own_splits=True)

    @property
    def splits_vary(self) -> bool:
        """Whether each seed has its own training and validation samples."""
        return (
            self.own_splits and isinstance(self.data, InMemoryData) and self.data.split_seed is not None
        )

    def of_seed(self, seed: int) -> "Task":
        """Return the task with the data for this seed."""
        if not self.splits_vary:
            return self
        alike = replace(self, data=self.data.split_anew(seed), own_splits=False)
        self._share_with(alike)
        return alike

    def of_recipe(self, tricks: Tricks, parts: int = 1) -> "Task":
        """Return the task with the batch size of a recipe.

        Args:
            tricks: the recipe.
            parts: the number of parts of a batch; their gradients are accumulated.

        Raises:
            InputError: if the data's batch size cannot be changed.
        """
        if tricks.batch.neutral:
            return self
        own = batch_size_of(self.data)
        data = with_batch_size(self.data, max((tricks.batch.size_of(own) or 1) // parts, 1))
        added = {"accumulate_grad_batches": parts * self.trainer.get("accumulate_grad_batches", 1)}
        alike = replace(self, data=data, trainer={**self.trainer, **(added if parts > 1 else {})})
        self._share_with(alike)
        vars(alike)["_rate_factor"] = tricks.batch.rate_factor(own)
        return alike

    @functools.cached_property
    def _rate_factor(self) -> float:
        """Factor on a recipe's learning rate, from its batch size."""
        return 1.0

    def _share_with(self, alike: "Task") -> None:
        """Pass on what is known of the network and data, so that they are examined only once."""
        for known in ("fingerprint", "_makes_new", "_seen"):
            vars(alike)[known] = getattr(self, known)

    def make(self, tricks: Tricks) -> nn.Module:
        """Return the network for a recipe as the user makes it, without Lightning's messages."""
        with quiet():
            return self.backbone(tricks)

    def module(self, tricks: Tricks, *, set_up: bool = False) -> pl.LightningModule:
        """Return a new module for a recipe; its weights come from torch's random state.

        For `ModuleTricks.yours()` it is the user's own module, unchanged.

        Args:
            tricks: the recipe.
            set_up: whether to make the layers now that it makes in `setup` or `configure_model`.
        """
        backbone = self.make(tricks)
        check_fit(backbone)
        if self._rate_factor != 1 and hasattr(tricks.optimizer, "lr"):
            rate = tricks.optimizer.lr * self._rate_factor
            optimizer = tricks.optimizer.model_copy(update={"lr": rate})
            tricks = tricks.model_copy(update={"optimizer": optimizer})
        if is_lightning_module(backbone):
            return self._own_module(backbone, tricks, set_up)
        module = TricksModule(
            backbone,
            tricks,
            anatomy=self.watched(tricks, backbone).anatomy,
            copied=not self._makes_new,
            loss=self.loss,
            metrics=self.metrics,
            monitor=self.monitor,
            mode=self.mode,
            validation_loss=self.plateau,
        )
        if self.channels_last:
            module.to(memory_format=torch.channels_last)
        if self.compiled:
            module.backbone.compile()
        return module

    def _own_module(
        self, module: pl.LightningModule, tricks: Tricks, set_up: bool
    ) -> pl.LightningModule:
        """Return the user's LightningModule with the tricks of a recipe; see `module`."""
        seen = self.watched(tricks, module)
        if not self._makes_new:
            module = copy.deepcopy(module)
        untouched = isinstance(tricks, ModuleTricks) and tricks.untouched
        if seen.late and (set_up or not untouched):
            prepare(module, self.data_of(module), self.rehearsed)
        if untouched:
            return module
        changed = with_tricks(
            module,
            tricks,
            monitor=self.monitor,
            mode=self.mode,
            validation_loss=self.plateau,
            anatomy=seen.anatomy,
            copied=False,
        )
        changed.is_set_up = seen.late
        return changed

    @functools.cached_property
    def _makes_new(self) -> bool:
        """Whether the networks of two trials share nothing; then they need no copies."""
        return makes_new(lambda: self.make(self.reference()))

    @functools.cached_property
    def _seen(self) -> dict[str, Watched]:
        """What watching showed, by the structure of the network."""
        return {}

    @property
    def rehearsed(self) -> dict[str, Any]:
        """Trainer arguments of the trials that a rehearsal uses too."""
        return {k: v for k, v in self.trainer.items() if k in ("accelerator", "precision")}

    def watched(self, tricks: Tricks, network: nn.Module | None = None) -> Watched:
        """Return what the unchanged network for a recipe does with a batch.

        Args:
            tricks: the recipe.
            network: a network of that structure, if there is one; it is not changed.

        Raises:
            InputError: if a LightningModule cannot be trained on a batch.
        """

        def make() -> Any:
            made = self.make(tricks)
            return made if self._makes_new else copy.deepcopy(made)

        with isolate_rng():
            seed_generators(0)  # what a network does may depend on its weights
            network = make() if network is None else network
            structure = structure_of(network)
            if structure not in self._seen:
                if is_lightning_module(network):
                    self._seen[structure] = watch_training(make, self.data_of, self.rehearsed)
                else:
                    inputs = Cast(tokens=takes_tokens(network))(self.example()[0][:WATCHED])
                    with user_code(f"the backbone does not take inputs of shape {tuple(inputs.shape)}"):
                        self._seen[structure] = Watched(watch(make(), [inputs]))
            return self._seen[structure]

    def data_of(self, module: pl.LightningModule) -> pl.LightningDataModule:
        """Return the data in the flavor of a module.

        Raises:
            InputError: if module and data module are both the user's, and their flavors differ.
        """
        flavor = flavor_of(module)
        if not isinstance(module, TricksModule) and not isinstance(
            self.data, InMemoryData | LoaderData | ModuleData
        ):
            check_one_flavor(flavor, data_module=self.data)
        data: pl.LightningDataModule = adapt(copy.copy(self.data), flavor)
        return data

    def example(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the inputs and targets of the first validation batch.

        Raises:
            InputError: if there is none, or it is not a pair of inputs and targets.
        """
        batch = self.batch()
        with user_code("val_dataloader() must give batches of (inputs, targets)"):
            inputs, targets = batch
            return inputs.cpu(), targets.cpu()

    def batch(self) -> Any:
        """Return the first validation batch, of any type.

        Raises:
            InputError: if there is none.
        """
        return data_facts.first_batch(self.data, self.rehearsed)

    def samples(self) -> int | None:
        """Return the number of training samples; None if unknown."""
        return data_facts.training_samples(self.data)

    def tests(self) -> bool:
        """Tell whether there is a test split."""
        return data_facts.has_test_split(self.data)

    def _beside(self) -> dict[str, Any]:
        """Return the types of the user's callbacks, for the fingerprint."""
        return {"callbacks": [type(each) for each in self.callbacks]} if self.callbacks else {}

    def _layers(self) -> str:
        with torch.random.fork_rng():
            return fingerprint.of_network(self.make(self.reference()))
