"""Whether the backbone makes equal networks from one recipe: the same layers, the same weights."""

import torch
from torch import nn

from lightning_tricks.errors import InputError, user_code
from lightning_tricks.surgery.pretrained import same_weights
from lightning_tricks.surgery.unfit import check_fit
from lightning_tricks.task.task import Task
from lightning_tricks.tricks.recipe import Tricks

FEW_PARAMETERS, CALLS = 1_000_000, 6
"""A network with fewer parameters is fast to make, so it is made this many more times."""


def made_again(task: Task, recipe: Tricks) -> tuple[nn.Module, bool]:
    """Make the network of a recipe several times.

    Returns:
        A network, and whether its weights are the same each time: loaded weights are, random ones not.

    Raises:
        InputError: if the layers differ, or the backbone raises anything.
    """
    made: list[nn.Module] = []
    for seed in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            with user_code("the backbone cannot be made"):
                made.append(task.make(recipe))
                check_fit(made[-1])
                states = [network.state_dict() for network in made]
    few = sum(parameter.numel() for parameter in made[0].parameters()) < FEW_PARAMETERS
    for _ in range(CALLS if few else 0):  # two may be equal by chance
        with torch.random.fork_rng(), user_code("the backbone cannot be made"):
            made.append(task.make(recipe))
    if len({_layers_of(network) for network in made}) > 1:
        raise InputError(
            "the backbone makes networks of different layers from one recipe: only weights may be "
            "random, so make everything else a field of the recipe, see `tricks` of the task"
        )
    return made[0], same_weights(*states)


def _layers_of(network: nn.Module) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """Return the layers of a network and the shapes of its parameters."""
    layers = [(name, type(layer).__name__, ()) for name, layer in network.named_modules()]
    sizes = [(name, "", tuple(value.shape)) for name, value in network.named_parameters()]
    return (*layers, *sizes)
