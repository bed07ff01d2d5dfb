"""Find and replace layers of an unmodified `torch.nn.Module`.

The *weighted layers* are the linear and convolutional ones, in the order of registration. The last
of them is the *head*; the others are *hidden*. A new layer is put beside one that is there: into its
`nn.Sequential`, or into one that takes its place.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from torch import nn

Weighted: TypeAlias = nn.Linear | nn.modules.conv._ConvNd
Norm = TypeVar("Norm", bound=nn.Module)

ACTIVATIONS: tuple[type[nn.Module], ...] = tuple(
    getattr(nn, name)
    for name in [
        "CELU",
        "ELU",
        "GELU",
        "GLU",
        "Hardshrink",
        "Hardsigmoid",
        "Hardswish",
        "Hardtanh",
        "LeakyReLU",
        "LogSigmoid",
        "Mish",
        "PReLU",
        "RReLU",
        "ReLU",
        "ReLU6",
        "SELU",
        "SiLU",
        "Sigmoid",
        "Softplus",
        "Softshrink",
        "Softsign",
        "Tanh",
        "Tanhshrink",
        "Threshold",
    ]
)
NORMS: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._NormBase,  # batch and instance norm
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)
DROPOUTS: tuple[type[nn.Module], ...] = (nn.modules.dropout._DropoutNd,)
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
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Fans(NamedTuple):
    """How many inputs one output of a layer sums over, and how many outputs one input reaches."""

    inputs: int
    outputs: int


def weighted_layers(module: nn.Module) -> list[Weighted]:
    """Return the linear and convolutional layers that are trained, in the order of registration."""
    return [m for m in module.modules() if isinstance(m, Weighted) and not frozen(m)]


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


def frozen(layer: nn.Module) -> bool:
    """Tell whether a layer has parameters, and none of them is trained: it is to stay as it is."""
    parameters = list(layer.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def learned_norm(module: nn.Module) -> str:
    """Return the name of a norm that was trained before; empty if there is none.

    All numbers of a parameter or statistic of a new norm are the same.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, NORMS):
            state = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
            if any(bool((values != values.flatten()[0]).any()) for values in state if values.numel()):
                return str(name)
    return ""


def hidden_layers(module: nn.Module) -> list[Weighted]:
    """Return the weighted layers but the head."""
    return weighted_layers(module)[:-1]


def called_layers(module: nn.Module) -> list[Weighted]:
    """Return the weighted layers that are called as modules, and may be replaced by others.

    `nn.MultiheadAttention` reads the weights of its projections.
    """
    read = {
        id(layer)
        for attention in module.modules()
        if isinstance(attention, nn.MultiheadAttention)
        for layer in attention.modules()
    }
    return [layer for layer in weighted_layers(module) if id(layer) not in read]


def channels(layer: Weighted) -> int:
    """Return the number of outputs of a linear layer, or of output channels of a convolution."""
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def trained_weight(layer: Weighted) -> nn.Parameter | None:
    """Return the parameter that a layer's weight is, or is computed from; None if it is a constant.

    Under weight norm that is the direction `v`, of the weight's shape, and not the lengths `g`.
    """
    held: Any = layer
    if nn.utils.parametrize.is_parametrized(layer, "weight"):
        held = layer.parametrizations["weight"]  # type: ignore[index]  # a ModuleDict
    matrices = [p for p in held.parameters(recurse=False) if p.dim() > 1]
    return matrices[-1] if matrices else None


def fans(layer: Weighted) -> Fans:
    """Return the true fan-in and fan-out of a layer.

    `torch.nn.init` ignores `groups` in the fan-out of a convolution and swaps the two fans of a
    transposed one; here each output counts what it sums over: k·in/groups, and each input what it
    reaches: k·out/groups (stride aside), with k the size of the kernel.
    """
    if isinstance(layer, nn.Linear):
        return Fans(layer.in_features, layer.out_features)
    kernel = math.prod(layer.kernel_size)
    return Fans(kernel * layer.in_channels // layer.groups, kernel * layer.out_channels // layer.groups)


def unit_dims(layer: Weighted) -> tuple[int, ...]:
    """Return the dimensions of the weight to sum over for one output unit."""
    if isinstance(layer, _TRANSPOSED):
        return (0, *range(2, layer.weight.dim()))
    return tuple(range(1, layer.weight.dim()))


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


def drop_bias(layer: Weighted) -> None:
    """Take away a bias that a following normalization subtracts again."""
    layer.register_parameter("bias", None)


def add_bias(layer: Weighted) -> None:
    """Give a layer a bias of zeros, if it has none."""
    if layer.bias is None:
        bias = torch.zeros(channels(layer), device=layer.weight.device, dtype=layer.weight.dtype)
        layer.register_parameter("bias", nn.Parameter(bias))


def load_state(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Load a state of a module like this one, as plain entries.

    What a `state_dict` carries beside them is this module's: layers look there for the version of
    their state.
    """
    full = module.state_dict()
    metadata = full._metadata  # type: ignore[attr-defined]  # torch's own way to pass it on
    full.clear()
    full.update(state)
    full._metadata = metadata  # type: ignore[attr-defined]
    module.load_state_dict(full)
