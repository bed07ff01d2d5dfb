"""Torch's own kernels, for networks that are too large to join into one flat tensor.

They take the same steps as the formulas, in a fraction of the time: see `benchmarks/own_or_theirs.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from lightning_tricks.surgery.torch_internals import foreach_mul_, leave_scaling_to_others
from lightning_tricks.tricks.optimizers.penalized import evaluate, penalize

DECAYS: Mapping[str, float] = {"l2": 0.0, "l1": 0.0, "decoupled": 0.0}
"""The weight-decay coefficients of a parameter group, with their defaults."""


class _WithDecays(Optimizer):
    """Applies the weight decays of a recipe before the step of a torch optimizer."""

    def __init__(self, groups: list[dict[str, Any]], **options: Any) -> None:
        super().__init__([{**DECAYS, **group} for group in groups], **options)
        leave_scaling_to_others(self)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; evaluates the closure first, with gradients enabled."""
        loss = evaluate(closure)
        for group in self.param_groups:
            parameters = penalize(group)
            if parameters and group["decoupled"]:
                foreach_mul_(parameters, 1 - group["lr"] * group["decoupled"])
        super().step()
        return loss


class TorchSGD(_WithDecays, torch.optim.SGD):
    """`torch.optim.SGD`."""


class TorchAdam(_WithDecays, torch.optim.Adam):
    """`torch.optim.Adam`."""


class TorchAdagrad(_WithDecays, torch.optim.Adagrad):
    """`torch.optim.Adagrad`."""


class TorchRMSprop(_WithDecays, torch.optim.RMSprop):
    """`torch.optim.RMSprop`."""
