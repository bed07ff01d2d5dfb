"""Torch's private names, all used in this file only, because they may change."""

import copy
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

Convolution = nn.modules.conv._ConvNd
TransposedConvolution = nn.modules.conv._ConvTransposeNd
BatchNormLayer = nn.modules.batchnorm._BatchNorm
BatchOrInstanceNorm = nn.modules.batchnorm._NormBase
DropoutLayer = nn.modules.dropout._DropoutNd
WeightNormFormula = nn.utils.parametrizations._WeightNorm
FormerWeightNorm = import_module("torch.nn.utils.weight_norm").WeightNorm
"""The older weight norm; a function of the same name hides its module."""

# One kernel for many tensors, as torch.optim uses.
foreach_add = torch._foreach_add
foreach_add_ = torch._foreach_add_
foreach_copy_ = torch._foreach_copy_
foreach_lerp_ = torch._foreach_lerp_
foreach_mul = torch._foreach_mul
foreach_mul_ = torch._foreach_mul_
foreach_norm = torch._foreach_norm


def submodules(module: nn.Module) -> dict[str, nn.Module | None]:
    """Return a module's direct children by name; None for a name without a module."""
    return module._modules


def names_in(module: nn.Module) -> set[str]:
    """Return the names of a module's own children, parameters and buffers."""
    return {*module._modules, *module._parameters, *module._buffers}


def hooks_of(module: nn.Module) -> tuple[dict[int, Any], dict[int, Any]]:
    """Return the hooks that run before a module's forward, and those that run after it."""
    return module._forward_pre_hooks, module._forward_hooks


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors into a flat one."""
    flat: Tensor = _flatten_dense_tensors(tensors)  # type: ignore[no-untyped-call]
    return flat


def unflatten(flat: Tensor, like: Sequence[Tensor]) -> Sequence[Tensor]:
    """Split a tensor of `flatten` into views."""
    parts: Sequence[Tensor] = _unflatten_dense_tensors(flat, like)  # type: ignore[no-untyped-call]
    return parts


def cloned(value: Any) -> Any:
    """Return a copy of nested containers of tensors, with the metadata of a `state_dict`.

    A deep copy would copy the whole storage behind a view.
    """
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        copied = copy.copy(value)
        copied.update({name: cloned(held) for name, held in value.items()})
        return copied
    if type(value) in (list, tuple):
        return type(value)(cloned(held) for held in value)
    return copy.deepcopy(value)


def with_metadata_of(state: Mapping[str, Any], module: nn.Module) -> Mapping[str, Any]:
    """Return the entries of a state with the metadata of a module's own `state_dict`.

    Layers read the version of their state there.
    """
    full = module.state_dict()
    if not hasattr(full, "_metadata"):  # the module's own state_dict gives a plain dictionary
        return state
    metadata = full._metadata  # as torch passes it on
    full.clear()
    full.update(state)
    full._metadata = metadata
    return full


def leave_scaling_to_others(optimizer: torch.optim.Optimizer) -> None:
    """Unscale the gradients of float16 losses before clipping, not inside a fused step."""
    if hasattr(optimizer, "_step_supports_amp_scaling"):
        optimizer._step_supports_amp_scaling = False
