"""Weight norm, whose parameters stand in the place of a layer's weight: lengths `g`, directions `v`."""

from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized

from lightning_tricks.errors import InputError
from lightning_tricks.surgery.layers import TRANSPOSED, Weighted, unit_dims, weighted_layers


def normalize_weights(module: nn.Module) -> None:
    """Put weight norm on every weighted layer of a module, in place.

    Raises:
        InputError: if layers share one weight.
    """
    layers = weighted_layers(module)
    weights = [id(layer.weight) for layer in layers]
    if len(set(weights)) < len(weights):
        raise InputError("normalization 'weight' would untie layers that share one weight")
    for layer in layers:
        if not torch.linalg.vector_norm(layer.weight, dim=unit_dims(layer)).all():
            continue  # a unit of zeros has no direction
        weight_norm(layer, dim=1 if isinstance(layer, TRANSPOSED) else 0)


def lengths(module: nn.Module) -> set[int]:
    """Return the ids of the lengths `g` of a module's layers."""
    layers = [layer for layer in module.modules() if is_parametrized(layer, "weight")]
    held = [layer.parametrizations["weight"] for layer in layers]  # type: ignore[index]
    return {id(parametrized.original0) for parametrized in held if hasattr(parametrized, "original0")}


def trained_weight(layer: Weighted) -> nn.Parameter | None:
    """Return the parameter that a layer's weight is, or is computed from; None if it is a constant.

    Under weight norm that is the direction `v`, of the weight's shape, and not the lengths `g`.
    """
    held: Any = layer
    if is_parametrized(layer, "weight"):
        held = layer.parametrizations["weight"]  # type: ignore[index]  # a ModuleDict
    matrices = [p for p in held.parameters(recurse=False) if p.dim() > 1]
    return matrices[-1] if matrices else None
