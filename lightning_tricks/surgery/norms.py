"""The norm layers of a network: which there are, and which others may take the place of."""

from typing import TypeVar

from torch import nn

from lightning_tricks.surgery.layers import frozen
from lightning_tricks.surgery.torch_internals import BatchOrInstanceNorm

Norm = TypeVar("Norm", bound=nn.Module)
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
"""Whose subclasses of torch's norms are declared: timm need not be there."""


def norm_layers(module: nn.Module) -> list[nn.Module]:
    """Return the norm layers that are not frozen, and that others may take the place of."""
    return [m for m in module.modules() if known(m) and not frozen(m)]


def unknown_norms(module: nn.Module) -> list[nn.Module]:
    """Return the norm layers that are not frozen, and whose class may do more than norm."""
    return [m for m in module.modules() if isinstance(m, NORMS) and not known(m) and not frozen(m)]


def declare_norm(kind: type[Norm]) -> type[Norm]:
    """Say that a class is one of torch's norms, and then its own child modules, one after another.

    A subclass of a norm that is not declared is left alone: it may do more than norm. To be called
    where the network is built, for workers are other processes.

    Returns:
        The class, so that this may decorate it.
    """
    _NORM_ONLY.add(kind)
    return kind


def known(layer: nn.Module) -> bool:
    """Tell whether a layer is one of torch's norms, or of a class that was declared to be one."""
    kind = type(layer)
    return kind in _NORM_ONLY or (isinstance(layer, NORMS) and kind.__module__ in _NORM_MODULES)


def after_norm(norm: nn.Module) -> list[nn.Module]:
    """Return what a known norm does with its result, such as an activation."""
    return [child for child in norm.children() if not isinstance(child, nn.Identity)]
