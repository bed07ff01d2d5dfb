"""Gradient clipping. The formulas take a number or a tensor of numbers for θ."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lightning_tricks.space.domains import Float
from lightning_tricks.space.trick import Trick
from lightning_tricks.surgery.layers import unit_dims
from lightning_tricks.surgery.torch_internals import foreach_mul_, foreach_norm
from lightning_tricks.surgery.watch import anatomy_of
from lightning_tricks.surgery.weight_norm import trained_weights


class ClippingTrick(Trick):
    """How gradients that are too large are shortened."""

    layerwise: ClassVar[bool] = False
    """Whether it reads the layers of the module instead of the gradients that it gets."""

    @abstractmethod
    def clip(self, module: nn.Module, gradients: Sequence[Tensor], norm: Tensor) -> Tensor:
        """Shorten gradients in place; return a boolean tensor of one value: whether any was shortened.

        Args:
            module: the module whose parameters have these gradients.
            gradients: the gradients of all its parameters that have one.
            norm: the norm of all these gradients, taken as one vector.
        """


class NoClipping(ClippingTrick):
    """Gradients stay unchanged."""

    neutral: ClassVar[bool] = True
    kind: Literal["none"] = "none"

    def clip(self, module: nn.Module, gradients: Sequence[Tensor], norm: Tensor) -> Tensor:
        del module, gradients
        return torch.zeros_like(norm, dtype=torch.bool)


class NormClipping(ClippingTrick):
    """g ← θ·g/‖g‖ where ‖g‖ > θ (Pascanu et al., 2013).

    When it helps: in recurrent networks and transformers, at large learning rates, and where the loss
    jumps. If more than half of the steps are clipped, lower the learning rate instead.
    """

    kind: Literal["norm"] = "norm"
    theta: Annotated[float, Float(0.1, 10.0, log=True)] = Field(default=1.0, gt=0)

    def clip(self, module: nn.Module, gradients: Sequence[Tensor], norm: Tensor) -> Tensor:
        del module
        foreach_mul_(list(gradients), norm_factor(norm, self.theta))
        return norm > self.theta


class UnitClipping(ClippingTrick):
    """g ← g/‖g‖ where ‖g‖ > θ: to length 1, whatever θ is.

    When it helps: only for comparison; some courses teach this form. With θ = 1 it is `norm`. With a
    larger θ, gradients above θ become shorter than those just below θ.
    """

    kind: Literal["unit"] = "unit"
    theta: Annotated[float, Float(0.1, 10.0, log=True)] = Field(default=1.0, gt=0)

    def clip(self, module: nn.Module, gradients: Sequence[Tensor], norm: Tensor) -> Tensor:
        del module
        foreach_mul_(list(gradients), unit_factor(norm, self.theta))
        return norm > self.theta


class ValueClipping(ClippingTrick):
    """Each coordinate of g is cut off at ±θ.

    When it helps: where a few coordinates have far larger gradients than the others. It changes the
    direction of a step.
    """

    kind: Literal["value"] = "value"
    theta: Annotated[float, Float(1e-3, 1.0, log=True)] = Field(default=0.1, gt=0)

    def clip(self, module: nn.Module, gradients: Sequence[Tensor], norm: Tensor) -> Tensor:
        del module, norm
        largest = torch.stack(foreach_norm(list(gradients), float("inf"))).amax()
        for gradient in gradients:
            gradient.clamp_(-self.theta, self.theta)
        return largest > self.theta


class AdaptiveClipping(ClippingTrick):
    """g ← λ·‖w‖/‖g‖·g for each output unit where ‖g‖ > λ·‖w‖, called AGC (Brock et al., 2021).

    It acts on the weights of hidden layers, but not on biases, norms or, as in the paper, the head.
    Under weight norm it acts on the directions. ‖w‖ counts as at least 10⁻³, so weights that begin
    at zero can move.

    When it helps: in networks without norms, at large batches and learning rates. Layers with small
    weights learn slowly.
    """

    layerwise: ClassVar[bool] = True
    kind: Literal["adaptive"] = "adaptive"
    ratio: Annotated[float, Float(5e-3, 0.2, log=True)] = Field(default=0.01, gt=0)

    def clip(self, module: nn.Module, gradients: Sequence[Tensor], norm: Tensor) -> Tensor:
        del gradients
        clipped = torch.zeros_like(norm, dtype=torch.bool)
        for layer, held, weight in trained_weights(module, anatomy_of(module)):
            dims = unit_dims(weight, held.unit)
            if not layer.output and weight.grad is not None:
                length = torch.linalg.vector_norm(weight, dim=dims, keepdim=True)
                limit = self.ratio * length.clamp_min(1e-3)
                norms = torch.linalg.vector_norm(weight.grad, dim=dims, keepdim=True)
                weight.grad.mul_(norm_factor(norms, limit))
                clipped = clipped | (norms > limit).any()
        return clipped


def norm_factor(norm: Tensor, theta: float | Tensor) -> Tensor:
    """Return the factor that limits a gradient of the given norm to the norm θ."""
    return theta / torch.maximum(norm, torch.as_tensor(theta).to(norm))


def unit_factor(norm: Tensor, theta: float | Tensor) -> Tensor:
    """Return the factor that gives a gradient the norm 1 if its norm exceeds θ."""
    return torch.where(norm > theta, 1 / norm, torch.ones_like(norm))


Clipping = NoClipping | NormClipping | UnitClipping | ValueClipping | AdaptiveClipping
