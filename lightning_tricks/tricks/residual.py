"""Tricks for residual branches: the norm at their end, and whether a step skips them.

`torch.fx` finds the residual branches, in any module of the network.
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
from lightning_tricks.surgery.dropout import StepsFirstDepth
from lightning_tricks.surgery.layers import depth_rate
from lightning_tricks.surgery.watch import anatomy_of

LOOKED = "looked with torch.fx for sums of a path and its shortcut"


class ResidualTrick(Trick):
    """How the residual branches are changed."""

    changes_layers: ClassVar[bool] = True

    kind: str

    def apply(self, module: nn.Module) -> None:
        """Change the residual branches of a module in place.

        Raises:
            InputError: if the module has none.
        """
        found = branches(module)
        if not found:
            raise InputError(f"{self.kind!r} found no residual branch: {LOOKED}")
        if not self.change(module, found):
            warnings.warn(f"{self.kind!r} changes no branch: {self.needs()}", stacklevel=3)

    @abstractmethod
    def change(self, module: nn.Module, found: list[Branch]) -> int:
        """Change the branches; return the number of changed branches."""

    @abstractmethod
    def needs(self) -> str:
        """Return which branches the trick looked for, in words."""


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
    """The norm at the end of a residual branch starts like any other norm."""

    kind: Literal["none"] = "none"


class ZeroGamma(ResidualTrick):
    """γ ← 0 in the norm that ends a residual branch: blocks begin as the identity (Goyal et al., 2017).

    Other norms stay unchanged: with γ = 0, a plain layer or an activation after it passes nothing on.

    When it helps: in deep residual networks with norms, at large learning rates. A network with only a
    few branches starts learning later.
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
    """No step skips a residual branch; stochastic-depth layers of the backbone are off."""

    kind: Literal["none"] = "none"

    def apply(self, module: nn.Module) -> None:
        for layer, rate in _own_layers(module):
            setattr(layer, rate, 0.0)


class OwnStochasticDepth(_NoResidualTrick):
    """The backbone's own stochastic depth, unchanged.

    When it helps: if its rates were chosen with care.
    """

    neutral: ClassVar[bool] = False
    searched: ClassVar[bool] = False
    kind: Literal["own"] = "own"


class LinearStochasticDepth(ResidualTrick):
    """A sample skips the i-th of L residual branches with probability p·i/L (Huang et al., 2016).

    Branches that are kept are divided by 1 − p·i/L. It puts `torchvision.ops.StochasticDepth` at the
    end of each branch. If the backbone already has such layers, or timm's `DropPath`, it sets the rates
    of all of them instead.

    When it helps: in residual networks of many blocks, in long runs. It makes shallow ones worse.
    """

    structural: ClassVar[Literal["", "kind", "fields"]] = "kind"

    searched: ClassVar[bool] = False
    kind: Literal["linear"] = "linear"
    p: Annotated[float, Float(0.02, 0.3)] = Field(default=0.1, gt=0, lt=1)

    def apply(self, module: nn.Module) -> None:
        own = _own_layers(module)
        for number, (layer, rate) in enumerate(own, start=1):
            setattr(layer, rate, self.p * number / len(own))
        if not own:
            super().apply(module)

    def change(self, module: nn.Module, found: list[Branch]) -> int:
        kind = StepsFirstDepth if anatomy_of(module).samples else StochasticDepth
        changed = 0
        for number, branch in enumerate(found, start=1):
            if branch.end and branch.alone:
                rate, end = self.p * number / len(found), module.get_submodule(branch.end)
                attach(end, DEPTH, kind(rate, "row"))
                changed += 1
        return changed

    def needs(self) -> str:
        return "looked for branches whose last module is called nowhere else"


def _own_layers(module: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return the stochastic-depth layers of a network, each with the attribute that holds its rate."""
    return [(layer, rate) for layer in module.modules() if (rate := depth_rate(layer))]


AnyZeroGamma = NoZeroGamma | ZeroGamma
AnyStochasticDepth = NoStochasticDepth | OwnStochasticDepth | LinearStochasticDepth
