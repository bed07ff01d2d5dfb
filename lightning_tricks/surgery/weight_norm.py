"""Weight norm: lengths `g` and directions `v` replace a layer's weight."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from lightning_tricks.surgery.anatomy import Anatomy, Layer, Weight, layers_in, parameters_of
from lightning_tricks.surgery.layers import unit_dims
from lightning_tricks.surgery.watch import anatomy_of


def normalize_weights(network: nn.Module) -> int:
    """Put weight norm on every layer with a single weight, in place. Return the number of layers.

    Layers with shared, parametrized or zero weights stay unchanged.
    """
    count = 0
    for layer, module in layers_in(network, anatomy_of(network)):
        single = len(layer.weights) == 1 and isinstance(getattr(module, "weight", None), nn.Parameter)
        if not single or layer.tied or layer.kept:
            continue
        weight, unit = module.get_parameter("weight"), layer.weights[0].unit
        if not torch.linalg.vector_norm(weight, dim=unit_dims(weight, unit)).all():
            continue  # a unit of zeros has no direction
        weight_norm(module, dim=unit)
        count += 1
    return count


def weights_in(network: nn.Module, anatomy: Anatomy) -> Iterator[tuple[Layer, Weight, nn.Parameter]]:
    """Walk the weights of layers with their parameters, in the order in which the layers run.

    Under weight norm the parameter is the direction `v`, of the weight's shape, not the lengths `g`.
    """
    held = parameters_of(network)
    for layer in anatomy.layers:
        for weight in layer.weights:
            name, _, last = weight.name.rpartition(".")
            inside = ".".join(filter(None, (name, "parametrizations", last, "original1")))
            parameter = held.get(weight.name, held.get(inside))
            if parameter is not None:
                yield layer, weight, parameter


def trained_weights(
    network: nn.Module, anatomy: Anatomy
) -> Iterator[tuple[Layer, Weight, nn.Parameter]]:
    """Walk the weights that are trained now; see `weights_in`."""
    return (found for found in weights_in(network, anatomy) if found[2].requires_grad)
