"""Replaces modules and attributes by others, and loads states into modules."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from lightning_tricks.surgery.torch_internals import submodules, with_metadata_of


def replace_everywhere(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replace `old` by `new` everywhere in a network."""
    for parent in list(network.modules()):
        if isinstance(parent, nn.TransformerEncoderLayer):
            # Switch off its fast path: the fused kernel would ignore the new module.
            parent.activation_relu_or_gelu = 0
        if isinstance(parent, nn.TransformerEncoder):
            parent.use_nested_tensor = False  # of the same fast path, which reads the layers' weights
        for name, child in list(submodules(parent).items()):
            if child is old:
                setattr(parent, name, new)


@contextmanager
def replaced_attributes(module: nn.Module, **values: Any) -> Iterator[None]:
    """Give a module other methods or plain attributes meanwhile."""
    before = {name: value for name, value in vars(module).items() if name in values}
    for name, value in values.items():
        object.__setattr__(module, name, value)  # without torch's search
    try:
        yield
    finally:
        for name in values:
            object.__delattr__(module, name)
        vars(module).update(before)


def load_state(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Load the plain entries of a state into a module.

    The metadata come from the module's own `state_dict`: layers read the version of their state there.
    """
    load_whole(module, with_metadata_of(state, module))


def load_whole(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Load a `state_dict` into a module, which may lack entries if its `strict_loading` is off."""
    module.load_state_dict(state, strict=getattr(module, "strict_loading", True))
