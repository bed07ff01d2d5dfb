"""Dropout in a group: each member draws its own masks, the ones that it would draw alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from lightning_tricks.surgery.dropout import UniformDropout, drop_


def _each_number(inputs: Tensor) -> tuple[int, ...]:
    return tuple(inputs.shape)


def _each_channel(inputs: Tensor) -> tuple[int, ...]:
    return (*inputs.shape[:2], *(1 for _ in inputs.shape[2:]))


def _each_sample(inputs: Tensor) -> tuple[int, ...]:
    return (len(inputs), *(1 for _ in inputs.shape[1:]))


def _each_batch(inputs: Tensor) -> tuple[int, ...]:
    return tuple(1 for _ in inputs.shape)


NOISES: Mapping[type[nn.Module], Callable[[Tensor], tuple[int, ...]]] = {
    UniformDropout: _each_number,
    nn.Dropout: _each_number,
    nn.Dropout2d: _each_channel,
    nn.Dropout3d: _each_channel,
    StochasticDepth: _each_sample,
}
"""The layers that draw, and of what shape their masks are."""


class Noise(nn.Module):
    """Takes the place of a layer that draws.

    Args:
        layers: of all members, of a class in `NOISES`.
        draws: the random state of each member.
    """

    def __init__(self, layers: Sequence[Any], draws: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.shape = NOISES[type(layers[0])]
        if getattr(layers[0], "mode", "row") == "batch":
            self.shape = _each_batch
        self.uniform = type(layers[0]) is UniformDropout
        self.rates = [float(layer.p) for layer in layers]
        self.draws = list(draws)

    def keep(self, places: Sequence[int]) -> None:
        """Keep some of the members."""
        self.rates = [self.rates[place] for place in places]
        self.draws = [self.draws[place] for place in places]

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or not any(self.rates):
            return inputs
        masks: Tensor = _Masks.apply(inputs.detach(), self)
        return inputs * masks

    def masks(self, inputs: Tensor) -> Tensor:
        """Draw the masks of all members, of zeros and 1/(1 − p), each as its layer would alone.

        Args:
            inputs: of all members, (K, N, …).
        """
        dtype = torch.float32 if self.uniform else inputs.dtype
        masks = inputs.new_ones((len(inputs), *self.shape(inputs[0])), dtype=dtype)
        for mask, rate, generator in zip(masks, self.rates, self.draws, strict=True):
            if rate and self.uniform:
                drop_(mask, rate, generator)
            elif rate:
                mask.bernoulli_(1 - rate, generator=generator)
        kept = inputs.new_tensor([1 - rate or 1 for rate in self.rates])
        return masks.to(inputs.dtype).div_(kept.view(-1, *(1 for _ in masks.shape[1:])))


class _Masks(torch.autograd.Function):
    """Hands what `vmap` shows a layer as one member's inputs back as those of all."""

    @staticmethod
    def forward(inputs: Tensor, noise: Noise) -> Tensor:
        raise RuntimeError("the members of a group draw together, inside of vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing: masks have no gradient."""

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[None, None]:
        return None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, inputs: Tensor, noise: Noise) -> tuple[Tensor, int]:
        return noise.masks(inputs.movedim(in_dims[0], 0)), 0
