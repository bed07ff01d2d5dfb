"""Put modules in the places of others, and states into modules."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from lightning_tricks.surgery.torch_internals import submodules, with_metadata_of


def replace_everywhere(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` in each place of a network where `old` stands."""
    for parent in list(network.modules()):
        if isinstance(parent, nn.TransformerEncoderLayer):
            # In use, it would take the weights of its layers to a kernel that knows no others.
            parent.activation_relu_or_gelu = 0
        for name, child in list(submodules(parent).items()):
            if child is old:
                setattr(parent, name, new)


def load_state(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Load a state of a module like this one, as plain entries.

    What a `state_dict` carries beside them is this module's: layers look there for the version of
    their state.
    """
    module.load_state_dict(with_metadata_of(state, module))
