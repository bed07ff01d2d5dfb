"""Tricks for networks with residual branches: where they end, and whether they take part.

Residual branches are found by `torch.fx`, in whatever module they stand.
"""

import warnings
from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import nn
from torchvision.ops import StochasticDepth

from lightning_tricks.errors import InputError
from lightning_tricks.space.domains import Float
from lightning_tricks.space.trick import Trick
from lightning_tricks.surgery.attach import DEPTH, attach
from lightning_tricks.surgery.branches import Branch, branches

LOOKED = "looked with torch.fx for sums of a path and its shortcut"


class ResidualTrick(Trick):
    """What is done to the residual branches."""

    changes_layers: ClassVar[bool] = True

    kind: str

    def apply(self, module: nn.Module) -> None:
        """Change the residual branches of a module in place.

        Raises:
            InputError: if it has none.
        """
        found = branches(module)
        if not found:
            raise InputError(f"{self.kind!r} found no residual branch: {LOOKED}")
        if not self.change(module, found):
            warnings.warn(f"{self.kind!r} changes no branch: {self.needs()}", stacklevel=3)

    @abstractmethod
    def change(self, module: nn.Module, found: list[Branch]) -> int:
        """Change the branches, and return how many were."""

    @abstractmethod
    def needs(self) -> str:
        """Say what a branch must have."""


class _NoResidualTrick(ResidualTrick):
    neutral: ClassVar[bool] = True

    def apply(self, module: nn.Module) -> None:
        del module

    def change(self, module: nn.Module, found: list[Branch]) -> int:
        del module, found
        return 0

    def needs(self) -> str:
        return "nothing"


class NoZeroGamma(_NoResidualTrick):
    """The norm at the end of a residual branch begins as any other."""

    kind: Literal["none"] = "none"


class ZeroGamma(ResidualTrick):
    """γ ← 0 in the norm that ends a residual branch: blocks begin as the identity (Goyal et al., 2017).

    Only there, for nothing would come through a plain layer that begins with γ = 0, nor through an
    activation after it.

    When it helps: in deep residual networks with norms, at large learning rates. A network of a few
    branches only begins later.
    """

    searched: ClassVar[bool] = False
    kind: Literal["zero_gamma"] = "zero_gamma"

    def change(self, module: nn.Module, found: list[Branch]) -> int:
        norms = [module.get_submodule(branch.norm) for branch in found if branch.norm]
        scales = [norm.weight for norm in norms if isinstance(norm.weight, nn.Parameter)]
        for scale in scales:
            nn.init.zeros_(scale)
        return len(scales)

    def needs(self) -> str:
        return "looked for branches that end in a norm with a scale"


class NoStochasticDepth(_NoResidualTrick):
    """Every residual branch takes part in every step; layers that the backbone has for it are off."""

    kind: Literal["none"] = "none"

    def apply(self, module: nn.Module) -> None:
        _switch_off(module)


class OwnStochasticDepth(_NoResidualTrick):
    """The stochastic depth that the backbone has, as it is.

    When it helps: where its rates were chosen with care.
    """

    neutral: ClassVar[bool] = False
    searched: ClassVar[bool] = False
    kind: Literal["own"] = "own"


class LinearStochasticDepth(ResidualTrick):
    """A sample skips the i-th of L residual branches with probability p·i/L (Huang et al., 2016).

    What is kept is divided by 1 − p·i/L. It is `torchvision.ops.StochasticDepth` at the end of each
    branch; a backbone that has it already gets the rates.

    When it helps: in residual networks of many blocks that are trained long. Shallow ones lose by it.
    """

    structural: ClassVar[Literal["", "kind", "fields"]] = "kind"

    searched: ClassVar[bool] = False
    kind: Literal["linear"] = "linear"
    p: Annotated[float, Float(0.02, 0.3)] = Field(0.1, gt=0, lt=1)

    def change(self, module: nn.Module, found: list[Branch]) -> int:
        _switch_off(module)
        changed = 0
        for number, branch in enumerate(found, start=1):
            rate, end = self.p * number / len(found), module.get_submodule(branch.end)
            if isinstance(end, StochasticDepth):
                end.p = rate
            elif branch.end and branch.alone:
                attach(end, DEPTH, StochasticDepth(rate, "row"))
            else:
                continue
            changed += 1
        return changed

    def needs(self) -> str:
        return "looked for branches whose last module is called nowhere else"


def _switch_off(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, StochasticDepth):
            layer.p = 0.0


AnyZeroGamma = NoZeroGamma | ZeroGamma
AnyStochasticDepth = NoStochasticDepth | OwnStochasticDepth | LinearStochasticDepth
