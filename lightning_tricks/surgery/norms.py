"""The norm layers of a network, and which of them may be replaced."""

import copy
from collections.abc import Collection
from typing import TypeVar

import torch
from torch import Tensor, nn

from lightning_tricks.surgery.anatomy import Norm
from lightning_tricks.surgery.torch_internals import BatchNormLayer, BatchOrInstanceNorm

Class = TypeVar("Class", bound=nn.Module)
NORMS: tuple[type[nn.Module], ...] = (
    BatchOrInstanceNorm,  # batch and instance norm
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)
_NORM_ONLY: set[type[nn.Module]] = {
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
}
_NORM_MODULES = {"torchvision.models.convnext", "timm.layers.norm", "timm.layers.norm_act"}
"""Modules whose subclasses of torch's norms count as declared; timm need not be installed."""


class _AnyDims(BatchNormLayer):
    def _check_input_dim(self, input: Tensor) -> None:
        del input


class FreeBatchNorm(_AnyDims):
    """Batch norm of the second dimension, with any number of dimensions after it."""


class LastBatchNorm(_AnyDims):
    """Batch norm of the last dimension, with any number of dimensions before it."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(-1, 1)).movedim(1, -1).contiguous()


class LastGroupNorm(nn.GroupNorm):
    """Group norm of the last dimension, for each position separately."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.reshape(-1, input.shape[-1])).view(input.shape)


class StepGroupNorm(LastGroupNorm):
    """Group norm of the second dimension, for each position separately."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1).contiguous()


def declare_norm(kind: type[Class]) -> type[Class]:
    """Declare that a class only runs one of torch's norms, and then its own children one by one.

    An undeclared subclass of a norm is not changed if it does more than normalize. Call this where the
    network is built, because workers are other processes.

    Returns:
        The class, so that this works as a decorator.
    """
    _NORM_ONLY.add(kind)
    return kind


for _own in (FreeBatchNorm, LastBatchNorm, LastGroupNorm, StepGroupNorm):
    declare_norm(_own)


def known(layer: nn.Module) -> bool:
    """Tell whether a layer is one of torch's norms or of a declared class."""
    kind = type(layer)
    return kind in _NORM_ONLY or (isinstance(layer, NORMS) and kind.__module__ in _NORM_MODULES)


def after_norm(norm: nn.Module) -> list[nn.Module]:
    """Return the modules that a declared norm runs on its result, such as an activation."""
    declared = known(norm)
    return [child for child in norm.children() if declared and not isinstance(child, nn.Identity)]


def place_of(path: str, norm: nn.Module, convolved: Collection[int] = ()) -> Norm:
    """Return what a known norm normalizes, by its class.

    Args:
        path: the norm's path.
        norm: the norm.
        convolved: the numbers of channels that the network's convolutions return. Layer norm over
            several dimensions begins with the channels, if it begins with one of these.
    """
    if isinstance(norm, LastBatchNorm | LastGroupNorm):
        width = norm.num_features if isinstance(norm, LastBatchNorm) else norm.num_channels
        steps = isinstance(norm, StepGroupNorm)
        return Norm(path, width, last=not steps, dims=None, apart=steps)
    if isinstance(norm, nn.GroupNorm):
        return Norm(path, norm.num_channels, last=False, dims=None)
    if isinstance(norm, BatchOrInstanceNorm):
        dims = next((d for d in (1, 2, 3) if f"{d}d" in type(norm).__name__), None)
        return Norm(path, norm.num_features, last=False, dims=dims)
    if isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        first, *others = norm.normalized_shape
        # `LayerNorm2d` of torchvision and timm normalizes the channels of images.
        dims = 2 if "2d" in type(norm).__name__ else len(others)
        if len(others) == 1 and first not in convolved:  # steps, then features
            return Norm(path, others[0], last=True, dims=None)
        return Norm(path, first, last=not dims, dims=dims or None)
    return Norm(path, 0, last=False, dims=None)


def normalizes(path: str, module: nn.Module, inputs: Tensor, output: Tensor) -> Norm | None:
    """Return the norm that a module is by its behavior; None if it does anything else.

    A norm keeps the shape, ignores the scale of its inputs, and is linear in its gain, a vector. This
    is tested on a copy of the module, with inputs of the watched shape.
    """
    gain = _gain(module)
    if gain is None or inputs.shape != output.shape or not inputs.is_floating_point():
        return None
    try:
        with torch.no_grad(), torch.random.fork_rng():
            return _tried(path, copy.deepcopy(module).double().train(), gain, inputs.detach().double())
    except Exception:  # the user's code may raise anything
        return None


def _gain(module: nn.Module) -> str | None:
    """Return the name of the only parameter that can be a gain; None if there is no such one."""
    named = list(module.named_parameters())
    vectors = [name for name, p in named if p.dim() == 1 and p.numel() > 1 and "bias" not in name]
    few = len(named) <= 2 and all(p.dim() == 1 for _, p in named)
    return vectors[0] if few and len(vectors) == 1 else None


def _tried(path: str, module: nn.Module, gain: str, inputs: Tensor) -> Norm | None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(inputs.shape, generator=generator, dtype=inputs.dtype) + 0.5
    parameter = module.get_parameter(gain)
    before = parameter.clone()

    def result(gains: Tensor, given: Tensor) -> Tensor:
        parameter.copy_(gains)
        found: Tensor = module(given)
        return found

    whole = result(before, inputs)
    step = 10 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    ahead, behind = result(before + step, inputs) - whole, result(before - step, inputs) - whole
    scaled = result(before, 30 * inputs)
    alike = torch.allclose(scaled, whole, rtol=0.01, atol=0.01 * float(whole.abs().max()))
    linear = torch.allclose(ahead, -behind, rtol=1e-4, atol=1e-6) and bool(ahead.any())
    if not alike or not linear or torch.allclose(whole, result(before, torch.zeros_like(inputs) + 0.5)):
        return None
    first = torch.zeros_like(before)
    first[0] = 1
    changed = (result(before + first, inputs) - whole).abs() > 1e-9
    return _along(path, before.numel(), changed)


def _along(path: str, width: int, changed: Tensor) -> Norm | None:
    """Return the norm of the only axis along which the first gain changes just the first numbers.

    Args:
        path: the norm's path.
        width: number of gains.
        changed: which of its results changed.
    """
    dims = changed.dim()
    axes = [
        axis
        for axis in range(1, dims)
        if changed.shape[axis] == width and not changed.movedim(axis, 0)[1:].any()
    ]
    if len(axes) != 1:
        return None
    last = axes[0] == dims - 1
    return Norm(path, width, last=last, dims=None if last else dims - 2)
