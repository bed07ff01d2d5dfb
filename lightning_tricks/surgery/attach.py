"""New modules before and after a layer, without replacing it.

They are children of the layer, and hooks call them. The layer keeps its attributes, class and place,
so that other code that reads it still works.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from lightning_tricks.surgery.anatomy import Anatomy
from lightning_tricks.surgery.torch_internals import hooks_of, submodules

NORM = "tricks_norm"
"""Name of a child that normalizes the outputs."""
DROPOUT = "tricks_dropout"
"""Name of a child that drops inputs."""
DEPTH = "tricks_depth"
"""Name of a child that skips the outputs of some samples."""


def positions_of_norms(anatomy: Anatomy) -> dict[str, int]:
    """Return the number of positions of a channel in a sample at each norm, also at those put in."""
    attached = {f"{layer.path}.{NORM}": layer.positions for layer in anatomy.layers}
    return attached | {norm.path: norm.positions for norm in anatomy.norms}


def _norm_outputs(layer: Any, inputs: Any, output: Tensor) -> Any:
    del inputs
    return layer.tricks_norm(output)


def _skip_outputs(layer: Any, inputs: Any, output: Tensor) -> Any:
    del inputs
    return layer.tricks_depth(output)


def _drop_inputs(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if args:
        return (layer.tricks_dropout(args[0]), *args[1:]), kwargs
    name = next(iter(kwargs))
    return args, {**kwargs, name: layer.tricks_dropout(kwargs[name])}


HOOKS = frozenset({_norm_outputs, _skip_outputs, _drop_inputs})
"""The hooks that call these children."""


def attach(layer: nn.Module, name: str, module: nn.Module) -> None:
    """Attach a module to a layer, and replace one of the same name."""
    present = hasattr(layer, name)
    layer.add_module(name, module)
    if present:
        return
    if name == DROPOUT:
        layer.register_forward_pre_hook(_drop_inputs, with_kwargs=True)
    else:
        layer.register_forward_hook(_norm_outputs if name == NORM else _skip_outputs)


def detach(layer: nn.Module, name: str) -> None:
    """Remove the module attached to a layer under a name."""
    delattr(layer, name)
    hook = {NORM: _norm_outputs, DEPTH: _skip_outputs, DROPOUT: _drop_inputs}[name]
    for held in hooks_of(layer):
        for key in [key for key, value in held.items() if value is hook]:
            del held[key]


def attached(network: nn.Module, name: str) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Walk the layers with an attached module of a name, together with that module."""
    for layer in list(network.modules()):
        if name in submodules(layer):
            yield layer, layer.get_submodule(name)


def has_hooks(layer: nn.Module) -> bool:
    """Tell whether a layer has the user's own hooks."""
    return any(hook not in HOOKS for held in hooks_of(layer) for hook in held.values())
