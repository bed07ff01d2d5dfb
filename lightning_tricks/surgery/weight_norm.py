"""Weight norm, whose parameters stand in the place of a layer's weight: lengths `g`, directions `v`."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from lightning_tricks.surgery.anatomy import Anatomy, Layer, Weight, layers_in, parameters_of
from lightning_tricks.surgery.layers import unit_dims
from lightning_tricks.surgery.watch import anatomy_of


def normalize_weights(network: nn.Module) -> int:
    """Put weight norm on every layer that has one weight of its own, in place; return on how many.

    Layers whose weight is shared, parametrized or zero on purpose are left alone.
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
    """Walk the parameters that the weights of layers are, or are computed from, in the order of running.

    Under weight norm that is the direction `v`, of the weight's shape, and not the lengths `g`.
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
    """Walk those of the weights that are trained now."""
    return (found for found in weights_in(network, anatomy) if found[2].requires_grad)
