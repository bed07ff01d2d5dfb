"""Networks and parts that no trick can act on, and what to do about them."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.prune import BasePruningMethod

from lightning_tricks.errors import InputError
from lightning_tricks.surgery.torch_internals import FormerWeightNorm, hooks_of


def check_fit(network: nn.Module) -> None:
    """Check that a network is initialized and can be copied.

    Raises:
        InputError: if a layer is lazy, pruned, or has the older weight norm.
    """
    for name, layer in network.named_modules():
        what = f"the layer {name or 'itself'!r} ({type(layer).__name__})"
        tensors = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
        if any(is_lazy(tensor) for tensor in tensors):
            raise InputError(
                f"{what} does not know its sizes yet: pass a batch through the network where it is "
                "made, as in network(torch.zeros(1, 3, 32, 32))"
            )
        if any(isinstance(hook, FormerWeightNorm) for hook in hooks_of(layer)[0].values()):
            raise InputError(
                f"{what} has torch.nn.utils.weight_norm and cannot be copied because of it: use "
                "torch.nn.utils.parametrizations.weight_norm"
            )
        if any(isinstance(hook, BasePruningMethod) for hook in hooks_of(layer)[0].values()):
            raise InputError(
                f"{what} is pruned and cannot be copied because of it: make the pruning permanent with "
                "torch.nn.utils.prune.remove"
            )


def compiled(network: nn.Module, prefix: str = "") -> Iterator[str]:
    """Walk the paths of the outermost parts that `torch.jit` compiled."""
    for name, child in network.named_children():
        if isinstance(child, torch.jit.ScriptModule):
            yield prefix + name
        else:
            yield from compiled(child, f"{prefix}{name}.")
