"""Dropout in a group: each member draws the same masks as it would alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from lightning_tricks.fusion.unfusible import Unfusible
from lightning_tricks.surgery.dropout import StepsFirstDepth, UniformDropout, drop_


def _each_number(inputs: Tensor) -> tuple[int, ...]:
    return tuple(inputs.shape)


def _each_channel(inputs: Tensor) -> tuple[int, ...]:
    return (*inputs.shape[:2], *(1 for _ in inputs.shape[2:]))


def _each_sample(inputs: Tensor) -> tuple[int, ...]:
    return (len(inputs), *(1 for _ in inputs.shape[1:]))


def _each_second(inputs: Tensor) -> tuple[int, ...]:
    return (1, inputs.shape[1], *(1 for _ in inputs.shape[2:]))


def _each_batch(inputs: Tensor) -> tuple[int, ...]:
    return tuple(1 for _ in inputs.shape)


def _bernoulli(mask: Tensor, p: float, generator: torch.Generator) -> None:
    mask.bernoulli_(1 - p, generator=generator)


@dataclass(frozen=True)
class _Kind:
    """How a kind of layer draws its masks."""

    shape: Callable[[Tensor], tuple[int, ...]]
    """Function that returns the shape of a mask, from the inputs."""
    draw: Callable[[Tensor, float, torch.Generator], object] = _bernoulli
    """Function that fills a mask with zeros, with probability p, and ones."""
    dtype: torch.dtype | None = None
    """Type of the masks; None for that of the inputs."""


NOISES: Mapping[type[nn.Module], _Kind] = {
    UniformDropout: _Kind(_each_number, drop_, torch.float32),
    nn.Dropout: _Kind(_each_number),
    nn.Dropout2d: _Kind(_each_channel),
    nn.Dropout3d: _Kind(_each_channel),
    StochasticDepth: _Kind(_each_sample),
    StepsFirstDepth: _Kind(_each_second),
}
"""The kinds of layers that draw."""


class Noise(nn.Module):
    """Replaces a layer that draws.

    Args:
        layers: the layers of all members, of a class in `NOISES`.
        draws: the random generator of each member.
    """

    def __init__(self, layers: Sequence[Any], draws: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.kind = NOISES[type(layers[0])]
        if getattr(layers[0], "mode", "row") == "batch":
            self.kind = replace(self.kind, shape=_each_batch)
        self.rates = [float(layer.p) for layer in layers]
        self.draws = list(draws)

    @property
    def p(self) -> float:
        """The rate, for a network that reads it from its layer, such as timm's attention.

        Raises:
            Unfusible: if a rate is not zero, because the network would draw the same masks for all.
        """
        if any(self.rates):
            raise Unfusible("a network reads the rate p of a layer that draws")
        return 0.0

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
        """Return the masks of all members, of zeros and 1/(1 − p), each as its layer would draw alone.

        Args:
            inputs: the inputs of all members, (K, N, …).
        """
        shape, dtype = self.kind.shape(inputs[0]), self.kind.dtype or inputs.dtype
        masks = inputs.new_ones((len(inputs), *shape), dtype=dtype)
        for mask, rate, generator in zip(masks, self.rates, self.draws, strict=True):
            if rate:
                self.kind.draw(mask, rate, generator)
        kept = inputs.new_tensor([1 - rate or 1 for rate in self.rates])
        return masks.to(inputs.dtype).div_(kept.view(-1, *(1 for _ in masks.shape[1:])))


class _Masks(torch.autograd.Function):
    """Draws for all members at once, although `vmap` shows a layer the inputs of only one."""

    @staticmethod
    def forward(inputs: Tensor, noise: Noise) -> Tensor:
        raise RuntimeError("a group can draw its masks inside vmap only")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save nothing, because masks have no gradient."""

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[None, None]:
        return None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, inputs: Tensor, noise: Noise) -> tuple[Tensor, int]:
        return noise.masks(inputs.movedim(in_dims[0], 0)), 0
