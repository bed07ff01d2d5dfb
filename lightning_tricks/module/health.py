"""Gradient health: do gradients reach the first layer, how often are they clipped, are they finite?"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_tricks.surgery.watch import anatomy_of
from lightning_tricks.surgery.weight_norm import trained_weights

CHECK_EVERY = 16
"""Steps between checks for NaN and infinity on an accelerator, where reading a number is slow."""


class Diverged(RuntimeError):
    """The loss or the gradients became NaN or infinite, so training cannot go on."""


class GradientHealth:
    """Numbers of each training step, kept on the device and averaged once per epoch."""

    def __init__(self) -> None:
        self.loss = torch.zeros(())
        """Loss of the last batch."""
        self.skips = False
        """Whether steps with infinite gradients are skipped, so that they do not mean divergence."""
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._clipped: list[Tensor] = []
        self._count = 0

    def observe(self, norms: Tensor, total: Tensor, clipped: Tensor) -> None:
        """Add a step.

        Args:
            norms: the gradient norm of each parameter, before clipping.
            total: the norm of all gradients as one vector.
            clipped: whether any gradient was clipped.

        Raises:
            Diverged: if the loss or a gradient is NaN or infinite.
        """
        self._losses.append(self.loss)
        self._norms.append(norms)
        self._clipped.append(clipped)
        self._count += 1
        if total.device.type == "cpu" or self._count % CHECK_EVERY == 0:
            self._check(self.loss.item(), total.item())

    def summary(
        self, ends: tuple[int, int], mean: Callable[[Tensor], Tensor] = lambda numbers: numbers
    ) -> dict[str, float]:
        """Return the means over the steps since the last summary, and forget them.

        `weights/gradient_norm` is the norm before clipping, `weights/steps_clipped` the share of steps
        that were clipped, `weights/first_to_last` the ratio of the mean norms of the first and
        the last layer. MLflow sorts charts by name; these come after those of `train` and `val`.

        Args:
            ends: positions of the first and the last layer's weight in the norms.
            mean: averages numbers over the processes that train together.

        Raises:
            Diverged: if a loss or a gradient was NaN or infinite.
        """
        if not self._losses:
            return {}
        norms = torch.stack(self._norms)  # (steps, parameters)
        means = [
            torch.stack(self._losses).mean(),
            torch.linalg.vector_norm(norms, dim=1).mean(),
            torch.stack(self._clipped).float().mean(),
            *norms.mean(0)[list(ends)],
        ]
        numbers = mean(torch.stack(means)).tolist()
        self._losses, self._norms, self._clipped = [], [], []
        self._check(*numbers[:2])
        return figures(*numbers)

    def _check(self, loss: float, norm: float) -> None:
        if error := diverged(loss, 0.0 if self.skips else norm, self._count):
            raise error


def figures(loss: float, norm: float, clipped: float, first: float, last: float) -> dict[str, float]:
    """Return the figures of an epoch by their logged names; see `summary`."""
    return {
        "train/loss": loss,
        "weights/gradient_norm": norm,
        "weights/steps_clipped": clipped,
        "weights/first_to_last": first / last if last > 0 else 0.0,
    }


def diverged(loss: float, norm: float, step: int) -> Diverged | None:
    """Return the error for a loss or gradient norm that is not finite; None if both are finite."""
    for name, value in (("loss", loss), ("gradient norm", norm)):
        if not math.isfinite(value):
            return Diverged(f"the {name} became {value} at training step {step}")
    return None


def ends(module: nn.Module, parameters: list[nn.Parameter]) -> tuple[int, int]:
    """Return the positions of the first and the last layer's weight among the parameters.

    Under weight norm these are the directions, so that both gradient norms are of the same kind.
    """
    places = {id(parameter): place for place, parameter in enumerate(parameters)}
    weights = [id(parameter) for _, _, parameter in trained_weights(module, anatomy_of(module))]
    owned = [places[weight] for weight in weights if weight in places]
    return (owned[0], owned[-1]) if owned else (0, len(parameters) - 1)
