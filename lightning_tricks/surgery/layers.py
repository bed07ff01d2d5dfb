"""Layers that are known by their class, without running them, and their biases."""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import nn
from torchvision.ops import StochasticDepth

from lightning_tricks.surgery.anatomy import Fans, Layer, Weight
from lightning_tricks.surgery.torch_internals import Convolution, DropoutLayer, TransposedConvolution

# nn.GLU is none of them: it halves the features, so a norm after it would need another width.
ACTIVATIONS: tuple[type[nn.Module], ...] = tuple(
    getattr(nn, name)
    for name in [
        "CELU",
        "ELU",
        "GELU",
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

DROPOUTS: tuple[type[nn.Module], ...] = (DropoutLayer,)

Weighted: TypeAlias = nn.Linear | Convolution
Name: TypeAlias = Callable[[str], str]
"""Function that returns the first name of a parameter."""

LOOKED_FOR = "linear and convolutional layers, torch's and others that multiply with a weight"


def frozen(layer: nn.Module) -> bool:
    """Tell whether a layer has parameters and none of them is trained; then it must not change."""
    parameters = list(layer.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def depth_rate(layer: nn.Module) -> str:
    """Return the attribute that holds the rate of a stochastic-depth layer; empty for another layer.

    Such layers are torchvision's, and those like timm's `DropPath`, which many packages copied.
    """
    if isinstance(layer, StochasticDepth):
        return "p"
    copied = type(layer).__name__.endswith("DropPath")
    return "drop_prob" if copied and isinstance(getattr(layer, "drop_prob", None), float) else ""


def known_layer(path: str, module: nn.Module) -> Layer | None:
    """Return the layer that a module is by its class; None if the class is unknown.

    Args:
        path: the module's path.
        module: the module.
    """
    prefix = f"{path}." if path else ""
    if isinstance(module, Weighted):
        return _single(path, f"{prefix}weight", module)
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return _recurrent(path, prefix, module)
    if isinstance(module, nn.MultiheadAttention):
        return _attention(path, prefix, module)
    return None


def _single(path: str, name: str, layer: Weighted) -> Layer:
    bias = () if layer.bias is None else (name.removesuffix("weight") + "bias",)
    transposed = isinstance(layer, TransposedConvolution)
    dims = None if isinstance(layer, nn.Linear) else len(layer.kernel_size)
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    weight = Weight(name, fans(layer), unit=int(transposed), blocks=groups)
    return Layer(path, (weight,), bias, channels(layer), dims, called=True)


def _recurrent(path: str, prefix: str, module: nn.Module) -> Layer:
    width = int(module.hidden_size)  # type: ignore[arg-type]
    weights, biases = [], []
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.dim() < 2:
            biases.append(prefix + name)
            continue
        rows, columns = parameter.shape
        parts = 1 if name.startswith("weight_hr") else max(rows // width, 1)
        weights.append(Weight(prefix + name, Fans(columns, rows // parts), parts=parts))
    return Layer(path, tuple(weights), tuple(biases), width)


def _attention(path: str, prefix: str, module: nn.MultiheadAttention) -> Layer:
    weights, biases = [], []
    for name, parameter in module.named_parameters():
        if name in ("bias_k", "bias_v"):
            continue
        if parameter.dim() < 2:
            biases.append(prefix + name)
            continue
        parts = 3 if name == "in_proj_weight" else 1
        rows, columns = parameter.shape
        weights.append(Weight(prefix + name, Fans(columns, rows // parts), parts=parts))
    return Layer(path, tuple(weights), tuple(biases), module.embed_dim)


def channels(layer: Weighted) -> int:
    """Return the number of outputs of a linear layer, or of output channels of a convolution."""
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def fans(layer: Weighted) -> Fans:
    """Return the true fan-in and fan-out of a layer.

    `torch.nn.init` ignores `groups` in the fan-out of a convolution, and swaps the fans of a transposed
    one. Here each output sums over k·in/groups inputs, and each input reaches k·out/groups outputs
    (ignoring the stride), with kernel size k. An output of a transposed convolution with stride s sums
    over a share 1/s of these inputs in each dimension.
    """
    if isinstance(layer, nn.Linear):
        return Fans(layer.in_features, layer.out_features)
    kernel = math.prod(layer.kernel_size)
    strides = math.prod(layer.stride) if isinstance(layer, TransposedConvolution) else 1
    summed = max(kernel // strides, 1)
    return Fans(summed * layer.in_channels // layer.groups, kernel * layer.out_channels // layer.groups)


def unit_dims(weight: torch.Tensor, unit: int) -> tuple[int, ...]:
    """Return the dimensions of a weight to sum over for one output unit.

    Args:
        weight: the weight of a layer.
        unit: its dimension of output units.
    """
    return tuple(dim for dim in range(weight.dim()) if dim != unit)


def drop_bias(layer: nn.Module) -> None:
    """Remove a bias that a following norm cancels."""
    if isinstance(getattr(layer, "bias", None), nn.Parameter):
        layer.register_parameter("bias", None)


def add_bias(layer: nn.Module) -> None:
    """Give one of torch's layers a zero bias, if it has none."""
    if isinstance(layer, Weighted) and layer.bias is None:
        weight = layer.weight
        bias = torch.zeros(channels(layer), device=weight.device, dtype=weight.dtype)
        layer.register_parameter("bias", nn.Parameter(bias))
