"""Rehearsals: recipes run on one batch, before the first trial."""

from typing import Any

from pytorch_lightning.utilities.seed import isolate_rng

from lightning_tricks.errors import InputError, user_code
from lightning_tricks.flavors import flavor_of
from lightning_tricks.module.hooks import TricksHooks
from lightning_tricks.module.tricks_module import Batch, TricksModule
from lightning_tricks.surgery.watch import anatomy_of
from lightning_tricks.surgery.weight_norm import trained_weights
from lightning_tricks.task.task import Task
from lightning_tricks.task.watching import fit_one_batch
from lightning_tricks.tricks.optimizers.muon import MuonOptimizer
from lightning_tricks.tricks.recipe import Tricks


def build(task: Task, tricks: Tricks) -> TricksHooks:
    """Return the module for a recipe.

    Raises:
        InputError: if a trick finds nothing to act on, or the user's code raises anything.
    """
    with user_code("the backbone cannot be made"):
        module = task.module(tricks)
        assert isinstance(module, TricksHooks)  # all except `yours`
        return module


@isolate_rng()
def rehearse_network(task: Task, batch: Batch, stage: str, tricks: Tricks) -> TricksModule:
    """Pass a batch forward and back through a plain network. Return the module with its gradients.

    Args:
        task: the network's task.
        batch: two samples or more.
        stage: the stage to try.
        tricks: the recipe.

    Raises:
        InputError: if the stage's kind does not fit the network, the data or the loss.
    """
    module = build(task, tricks)
    assert isinstance(module, TricksModule)
    module.scaling = None  # not fitted
    with user_code(_misfit(tricks, stage, "the backbone, the data or the loss")):
        module.train(len(batch[0]) > 1)
        module.learned_loss(batch).backward()  # type: ignore[no-untyped-call]
    return module


@isolate_rng()
def rehearse_module(task: Task, tricks: Tricks, stage: str = "") -> TricksHooks:
    """Train and validate a LightningModule with a recipe on one batch. Return it with its gradients.

    Args:
        task: the module's task.
        tricks: the recipe.
        stage: the stage to try.

    Raises:
        InputError: if training or validation fails.
    """
    module = build(task, tricks)
    with user_code(_misfit(tricks, stage, "the module or its data")):
        fit_one_batch(module, task.data_of(module), task.rehearsed)
    return module


@isolate_rng()
def step(module: TricksHooks, tricks: Tricks) -> None:
    """Take one optimizer step with a recipe, on a module that has gradients.

    Raises:
        InputError: if the optimizer finds nothing to act on, or fails.
    """
    subject = module.tricks_subject
    with user_code(_misfit(tricks, "optimizer", "the parameters")):
        groups = tricks.weight_decay.groups(subject)
        optimizer = tricks.optimizer.build(groups, subject)
        getattr(optimizer, "train", bool)()  # schedule-free optimizers have a training mode
        optimizer.step()
        if isinstance(optimizer, MuonOptimizer) and not optimizer.acts:
            raise InputError("optimizer 'muon' finds nothing to act on: all its matrices are frozen")


def rehearse_average(task: Task, tricks: Tricks) -> None:
    """Train and validate a LightningModule with an optimizer that shows averaged weights.

    Raises:
        InputError: if training or validation fails.
    """
    if tricks.optimizer.callback() is not None:
        rehearse_module(task, tricks, "optimizer")


def check_clipping(module: TricksHooks, tricks: Tricks) -> None:
    """Check that clipping by layer finds a layer to act on.

    Raises:
        InputError: if all layers are outputs, or frozen.
    """
    network = module.tricks_subject
    hidden = (not layer.output for layer, *_ in trained_weights(network, anatomy_of(network)))
    if tricks.clipping.layerwise and not any(hidden):
        raise InputError(
            f"clipping {tricks.clipping.kind!r} found nothing to act on: looked for the trained weights "
            "of layers other than the outputs"
        )


def overrides(module: Any, hook: str) -> bool:
    """Tell whether a LightningModule has a hook of its own."""
    lightnings = flavor_of(module).package.LightningModule
    return getattr(type(module), hook) is not getattr(lightnings, hook)


def _misfit(tricks: Tricks, stage: str, what: str) -> str:
    if not stage:
        return "a first batch cannot be trained"
    return f"{stage} {getattr(tricks, stage).kind!r} does not fit {what}"
