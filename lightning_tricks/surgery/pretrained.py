"""Was a network trained before?"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lightning_tricks.surgery.norms import NORMS


def learned_norm(module: nn.Module) -> str:
    """Return the name of a norm that was trained before; empty if there is none.

    All numbers of a parameter of a new norm are the same. Its statistics need not be: one forward pass
    in training mode, as of lazy layers, changes them.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, NORMS):
            state = list(layer.parameters(recurse=False))
            if any(bool((values != values.flatten()[0]).any()) for values in state if values.numel()):
                return str(name)
    return ""


def same_weights(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Tell whether two states have the same weights, though made from other seeds: these were loaded."""
    weights = [name for name, value in first.items() if torch.is_tensor(value) and value.dim() > 1]
    return bool(weights) and all(torch.equal(first[name], second[name]) for name in weights)
