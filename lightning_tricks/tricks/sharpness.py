"""Sharpness-aware minimization: go down where the surroundings are low too."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lightning_tricks.space import Float, Trick

Evaluate = Callable[[], Any]
"""Passes a batch forward and back, which leaves its gradients in the parameters."""


class SharpnessTrick(Trick):
    """Where the gradient is taken."""

    @abstractmethod
    def closure(self, module: nn.Module, evaluate: Evaluate) -> Evaluate:
        """Return what leaves the gradients to step with in the parameters of a module."""


class NoSharpness(SharpnessTrick):
    """At the weights themselves."""

    neutral: ClassVar[bool] = True
    kind: Literal["none"] = "none"

    def closure(self, module: nn.Module, evaluate: Evaluate) -> Evaluate:
        del module
        return evaluate


class SharpnessAware(SharpnessTrick):
    """g ← ∇L(w + ρ·∇L(w)/‖∇L(w)‖) (SAM; Foret et al., 2021). A step costs two passes.

    The statistics of batch norm are those of the first pass.
    """

    searched: ClassVar[bool] = False
    kind: Literal["sam"] = "sam"
    rho: Annotated[float, Float(0.01, 0.2, log=True)] = Field(0.05, gt=0)

    def closure(self, module: nn.Module, evaluate: Evaluate) -> Evaluate:
        def twice() -> Any:
            result = evaluate()
            with self._climbed(module), _statistics_kept(module):
                evaluate()
            return result

        return twice

    @contextmanager
    def _climbed(self, module: nn.Module) -> Iterator[None]:
        """Move the weights uphill for a while."""
        parameters: list[Tensor] = [p for p in module.parameters() if p.grad is not None]
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            gradients = [p.grad for p in parameters if p.grad is not None]
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            climb = torch._foreach_mul(gradients, self.rho / (norm + 1e-12))
            torch._foreach_add_(parameters, list(climb))
        yield
        with torch.no_grad():
            torch._foreach_copy_(parameters, before)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [(norm, norm.track_running_stats) for norm in norms if norm.training]
    for norm, _ in kept:
        norm.track_running_stats = False
    yield
    for norm, tracked in kept:
        norm.track_running_stats = tracked


Sharpness = NoSharpness | SharpnessAware
