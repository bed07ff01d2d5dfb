"""Put layers into a network, and take them out.

A new layer is put beside one that is there: into its `nn.Sequential`, or into one that takes its
place.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from lightning_tricks.surgery.torch_internals import with_metadata_of


def sequentials(module: nn.Module) -> Iterator[nn.Sequential]:
    """Walk the containers whose children run one after another."""
    for found in list(module.modules()):
        if isinstance(found, nn.Sequential) and type(found).forward is nn.Sequential.forward:
            yield found


def refill(container: nn.Sequential, modules: Iterable[nn.Module]) -> None:
    """Replace the children of a container; children that stay keep the names that are not numbers."""
    old = dict(container._modules)
    numbered = all(name.isdecimal() for name in old)
    names: dict[int, list[str]] = {}  # a child may stand in several places
    for name, child in old.items():
        names.setdefault(id(child), []).append(name)
        del container._modules[name]
    for index, child in enumerate(modules):
        name = str(index)
        if not numbered:
            own = names.get(id(child))
            name = own.pop(0) if own else f"{type(child).__name__.lower()}_{index}"
        container.add_module(name, child)


def put_beside(
    module: nn.Module,
    layer: nn.Module,
    *,
    before: nn.Module | None = None,
    after: nn.Module | None = None,
) -> None:
    """Put a new layer before or after one, wherever that stands in the module."""
    inside = False
    group = [found for found in (before, layer, after) if found is not None]
    for container in sequentials(module):
        children = list(container)
        if any(child is layer for child in children):
            inside = True
            refill(
                container,
                [new for child in children for new in (group if child is layer else [child])],
            )
    if not inside:
        replace_everywhere(module, layer, nn.Sequential(*group))


def replace_everywhere(module: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` in each place of the module where `old` stands."""
    for parent in list(module.modules()):
        if isinstance(parent, nn.TransformerEncoderLayer):
            # In use, it would take the weights of its layers to a kernel that knows no others.
            parent.activation_relu_or_gelu = 0
        for name, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, name, new)


def load_state(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Load a state of a module like this one, as plain entries.

    What a `state_dict` carries beside them is this module's: layers look there for the version of
    their state.
    """
    module.load_state_dict(with_metadata_of(state, module))
