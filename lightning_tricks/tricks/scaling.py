"""Input scaling, fitted on the training split and kept in the module (LeCun et al., 1998).

The statistics are buffers, so a saved model takes raw inputs. They are computed for each feature of flat
inputs (N, F) and of sequences (N, T, F), and for each channel of inputs (N, C, …). The network tells
which axis that is. If it does not, all numbers share one mean and one deviation.
"""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lightning_tricks.errors import InputError
from lightning_tricks.space.trick import Trick
from lightning_tricks.surgery.anatomy import Axes

USUAL = Axes(3, 1)
"""Default axis of the features: the dimension after that of the samples."""
LIMIT = 8.0
"""Largest absolute value of a scaled input. Without it, a feature that is nearly constant in the
training split would send any other value arbitrarily far away."""


class Statistics:
    """Running count, mean, variance and range of each feature, merged batch by batch in float64.

    The merge is that of Chan, Golub and LeVeque (1983), which loses no digits when the mean is large
    compared to the deviation.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.square = self.low = self.high = torch.zeros(())

    def update(self, batch: Tensor, axis: int | None = 1) -> None:
        """Add a batch.

        Args:
            batch: inputs of shape (N, …).
            axis: the axis of the features; None if all numbers are one feature.

        Raises:
            InputError: if a value is NaN or infinite.
        """
        wide = batch.to(torch.float64)
        # (features, values per feature)
        rows = wide.reshape(1, -1) if axis is None else wide.movedim(axis, 0).flatten(1)
        if not torch.isfinite(rows).all():
            raise InputError("inputs must be finite (got NaN or infinity in the training split)")
        count, mean = rows.shape[1], rows.mean(1)
        square = (rows - mean[:, None]).square().sum(1)
        low, high = rows.amin(1), rows.amax(1)
        if self.count:
            total, delta = self.count + count, mean - self.mean
            square += self.square + delta.square() * self.count * count / total
            mean = self.mean + delta * count / total
            low, high = torch.minimum(low, self.low), torch.maximum(high, self.high)
            count = total
        self.count, self.mean, self.square, self.low, self.high = count, mean, square, low, high

    @property
    def deviation(self) -> Tensor:
        """The standard deviation of each feature."""
        return (self.square / max(self.count, 1)).sqrt()


class Scale(nn.Module):
    """x ← clamp((x − offset)·gain, ±8), with one offset and one gain per feature.

    Args:
        axes: where the features of the inputs are; if unknown, all numbers are one feature.
    """

    offset: Tensor
    gain: Tensor

    def __init__(self, axes: Axes = USUAL) -> None:
        super().__init__()
        self.axes = axes
        self.register_buffer("offset", torch.empty(0))
        self.register_buffer("gain", torch.empty(0))

    @property
    def fitted(self) -> bool:
        """Whether the layer has its statistics."""
        return self.offset.numel() > 0

    def forward(self, inputs: Tensor) -> Tensor:
        axis = self.axes.axis(inputs.dim())
        shape = [1] * inputs.dim()
        shape[1 if axis is None else axis] = -1
        scaled = (inputs - self.offset.view(shape)) * self.gain.view(shape)
        return scaled.clamp(-LIMIT, LIMIT)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        # A fresh module has empty buffers until it is fitted: take the shape of the saved ones.
        for name in ("offset", "gain"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]).to(self.offset))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Cast(nn.Module):
    """Integer inputs, such as images of bytes, become floating-point numbers of the same value.

    Args:
        tokens: whether integers other than bytes are tokens for an embedding; tokens stay unchanged.
    """

    def __init__(self, tokens: bool = False) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs if inputs.is_floating_point() or self.keeps(inputs) else inputs.float()

    def keeps(self, inputs: Tensor) -> bool:
        """Tell whether inputs are tokens."""
        return self.tokens and inputs.dtype in (torch.int16, torch.int32, torch.int64)


def takes_tokens(network: nn.Module) -> bool:
    """Tell whether a network has an embedding, which takes tokens."""
    return any(isinstance(layer, (nn.Embedding, nn.EmbeddingBag)) for layer in network.modules())


class ScalingTrick(Trick):
    """How inputs are scaled."""

    needs_forward: ClassVar[bool] = True
    structural: ClassVar[Literal["", "kind", "fields"]] = "kind"

    def build(self, axes: Axes = USUAL) -> Scale | None:
        """Return the scaling layer, not yet fitted; None if there is nothing to scale.

        Args:
            axes: see `Scale`.
        """
        return Scale(axes)

    def fit(self, layer: Scale, batches: Iterable[Tensor]) -> None:
        """Fit a layer on the inputs of the training split.

        Raises:
            InputError: if there are no inputs, or if one is NaN or infinite.
        """
        statistics = Statistics()
        for batch in batches:
            statistics.update(batch, layer.axes.axis(batch.dim()))
        if not statistics.count:
            raise InputError("input scaling needs a training split (got no batch)")
        offset, width = self.affine(statistics)
        # A feature whose width is below the rounding error of its values is constant.
        magnitude = torch.maximum(statistics.low.abs(), statistics.high.abs())
        constant = width <= 1e-6 * magnitude
        gain = torch.where(constant, 1.0, width.clamp_min(torch.finfo(torch.float32).tiny)).pow(-1)
        layer.offset = torch.where(constant, statistics.mean, offset).to(layer.offset)
        layer.gain = gain.to(layer.gain)

    @abstractmethod
    def affine(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """Return, for each feature, the value that becomes 0 and the width that becomes 1."""


class NoScaling(ScalingTrick):
    """Inputs stay unchanged."""

    neutral: ClassVar[bool] = True
    kind: Literal["none"] = "none"

    def build(self, axes: Axes = USUAL) -> None:
        del axes

    def affine(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(statistics.mean), torch.ones_like(statistics.mean)


class UnitScaling(ScalingTrick):
    """x ← (x − min)/(max − min), to [0, 1].

    When it helps: where inputs have a fixed range, such as bytes. One outlier in the training split
    squeezes all other values together.
    """

    kind: Literal["unit"] = "unit"

    def affine(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        return statistics.low, statistics.high - statistics.low


class SignedScaling(ScalingTrick):
    """x ← 2·(x − min)/(max − min) − 1, to [−1, 1].

    When it helps: where `unit` does. Zero is in the middle, which suits the first layer better. One
    outlier in the training split squeezes all other values together.
    """

    kind: Literal["signed"] = "signed"

    def affine(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        return (statistics.low + statistics.high) / 2, (statistics.high - statistics.low) / 2


class Standardize(ScalingTrick):
    """x ← (x − mean)/std (LeCun et al., 1998).

    The std is raised to at least a twentieth of the range. This affects features with a few rare
    spikes, not ordinary ones.

    When it helps: nearly always. Layers and their initialization are made for inputs of mean 0 and
    std 1.
    """

    kind: Literal["standardize"] = "standardize"

    def affine(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        spread = (statistics.high - statistics.low) / 20
        return statistics.mean, torch.maximum(statistics.deviation, spread)


Scaling = NoScaling | UnitScaling | SignedScaling | Standardize
