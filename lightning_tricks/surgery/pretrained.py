"""Tells whether a network was trained before."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lightning_tricks.surgery.norms import NORMS


def learned_norm(module: nn.Module) -> str:
    """Return the name of a norm that was trained before; empty if there is none.

    In a new norm all numbers of a parameter are equal. Its statistics tell nothing: one forward pass in
    training mode, such as for lazy layers, changes them.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, NORMS):
            state = list(layer.parameters(recurse=False))
            if any(bool((values != values.flatten()[0]).any()) for values in state if values.numel()):
                return str(name)
    return ""


def same_weights(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Tell whether two states made from different seeds have equal weights; then these were loaded."""
    weights = [name for name, value in first.items() if torch.is_tensor(value) and value.dim() > 1]
    return bool(weights) and all(torch.equal(first[name], second[name]) for name in weights)
