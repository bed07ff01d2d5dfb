"""Sharpness-aware minimization: prefer weights whose surroundings have a low loss too."""

import random
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from lightning_tricks.space.domains import Float
from lightning_tricks.space.trick import Trick
from lightning_tricks.surgery.torch_internals import (
    foreach_add_,
    foreach_copy_,
    foreach_mul,
    foreach_norm,
)

Evaluate = Callable[[], Any]
"""A function that runs a batch forward and backward, and leaves the gradients in the parameters."""


class SharpnessTrick(Trick):
    """The point at which the gradient is taken."""

    structural: ClassVar[Literal["", "kind", "fields"]] = "kind"

    def climb(self, gradient: Tensor) -> Tensor:
        """Return what to add to the weights before the gradient of the step is taken.

        Args:
            gradient: the gradient of all weights, as one vector.
        """
        return torch.zeros_like(gradient)

    @abstractmethod
    def closure(self, module: nn.Module, evaluate: Evaluate) -> Evaluate:
        """Return a function that leaves the gradients of the step in a module's parameters."""


class NoSharpness(SharpnessTrick):
    """The gradient is taken at the weights themselves."""

    neutral: ClassVar[bool] = True
    kind: Literal["none"] = "none"

    def closure(self, module: nn.Module, evaluate: Evaluate) -> Evaluate:
        del module
        return evaluate


class SharpnessAware(SharpnessTrick):
    """g ← ∇L(w + ρ·∇L(w)/‖∇L(w)‖) as SAM (Foret et al., 2021). A step costs two passes.

    Both passes draw the same random numbers, from torch, NumPy and Python. Buffers, such as batch-norm
    statistics, come from the first pass. Your own `training_step` logs everything twice.

    When it helps: in long runs that overfit, if you can afford a second pass.
    """

    searched: ClassVar[bool] = False
    kind: Literal["sam"] = "sam"
    rho: Annotated[float, Float(0.01, 0.2, log=True)] = Field(default=0.05, gt=0)

    def climb(self, gradient: Tensor) -> Tensor:
        return gradient * self._share(torch.linalg.vector_norm(gradient))

    def _share(self, norm: Tensor) -> Tensor:
        """Return the factor that gives a gradient of this norm the length ρ."""
        return self.rho / (norm + 1e-12)

    def closure(self, module: nn.Module, evaluate: Evaluate) -> Evaluate:
        def twice() -> Any:
            draws = _random_state(next(module.parameters()).device)
            result = evaluate()
            if all(parameter.grad is None for parameter in module.parameters()):
                return result  # this step has no loss
            with self._climbed(module), _buffers_kept(module):
                draws()
                evaluate()
            return result

        return twice

    @contextmanager
    def _climbed(self, module: nn.Module) -> Iterator[None]:
        """Move the weights uphill inside the `with` block."""
        parameters: list[Tensor] = [p for p in module.parameters() if p.grad is not None]
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            gradients = [p.grad for p in parameters if p.grad is not None]
            norm = torch.linalg.vector_norm(torch.stack(foreach_norm(gradients)))
            climb = foreach_mul(gradients, self._share(norm))
            foreach_add_(parameters, list(climb))
        try:
            yield
        finally:
            with torch.no_grad():
                foreach_copy_(parameters, before)


@contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    """Give a module its buffers back, changed or replaced, at the end of the `with` block."""
    named = [(m, name, held) for m in module.modules() for name, held in m.named_buffers(recurse=False)]
    before = [held.clone() for _, _, held in named]
    try:
        yield
    finally:
        with torch.no_grad():
            for (owner, name, held), value in zip(named, before, strict=True):
                setattr(owner, name, held.copy_(value))


def _random_state(device: torch.device) -> Callable[[], None]:
    """Return a function that brings back the random state of torch, NumPy and Python."""
    python, state = random.getstate(), torch.get_rng_state()
    others = np.random.get_state()  # noqa: NPY002  # users draw from it
    on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(others)  # noqa: NPY002  # users draw from it
        torch.set_rng_state(state)
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu, device)

    return restore


Sharpness = NoSharpness | SharpnessAware
