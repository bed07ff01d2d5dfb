"""The weighted layers of a network: which there are, their fans, their biases.

They are the linear and convolutional ones, in the order of registration. The last of them is the
*head*; the others are *hidden*.
"""

import math
from typing import NamedTuple, TypeAlias

import torch
from torch import nn

from lightning_tricks.surgery.torch_internals import Convolution, DropoutLayer

Weighted: TypeAlias = nn.Linear | Convolution

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

DROPOUTS: tuple[type[nn.Module], ...] = (DropoutLayer,)

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Fans(NamedTuple):
    """How many inputs one output of a layer sums over, and how many outputs one input reaches."""

    inputs: int
    outputs: int


def frozen(layer: nn.Module) -> bool:
    """Tell whether a layer has parameters, and none of them is trained: it is to stay as it is."""
    parameters = list(layer.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def weighted_layers(module: nn.Module) -> list[Weighted]:
    """Return the linear and convolutional layers that are trained, in the order of registration."""
    return [m for m in module.modules() if isinstance(m, Weighted) and not frozen(m)]


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
    if isinstance(layer, TRANSPOSED):
        return (0, *range(2, layer.weight.dim()))
    return tuple(range(1, layer.weight.dim()))


def drop_bias(layer: Weighted) -> None:
    """Take away a bias that a following normalization subtracts again."""
    layer.register_parameter("bias", None)


def add_bias(layer: Weighted) -> None:
    """Give a layer a bias of zeros, if it has none."""
    if layer.bias is None:
        bias = torch.zeros(channels(layer), device=layer.weight.device, dtype=layer.weight.dtype)
        layer.register_parameter("bias", nn.Parameter(bias))
