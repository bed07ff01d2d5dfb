"""Which layers of a pretrained network learn, and how fast: fine-tuning.

The layers are the weighted ones in the order of registration; what stands between two of them, such
as a norm, goes with the one before.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from lightning_tricks.space.domains import Float
from lightning_tricks.space.trick import Trick
from lightning_tricks.surgery.layers import DROPOUTS, weighted_layers
from lightning_tricks.surgery.norms import NORMS


class TransferTrick(Trick):
    """What becomes of the layers that were trained before."""

    def freeze(self, module: nn.Module) -> list[nn.Module]:
        """Freeze layers of a module; return those modules that are to stay in evaluation mode."""
        del module
        return []

    @abstractmethod
    def rate(self, place: float) -> float:
        """Return what the learning rate of a layer is multiplied with.

        Args:
            place: of the layer: 0 for the first, 1 for the head.
        """

    def split(self, groups: Sequence[dict[str, Any]], module: nn.Module, lr: float) -> list[Any]:
        """Split optimizer groups into those of one learning rate each.

        Args:
            groups: of the parameters of a module.
            module: the module.
            lr: the learning rate of the head.
        """
        found = places(module)
        parts: dict[tuple[int, float], list[nn.Parameter]] = {}
        for number, group in enumerate(groups):
            for parameter in group["params"]:
                rate = self.rate(found[id(parameter)])
                parts.setdefault((number, rate), []).append(parameter)
        return [
            {**groups[number], "params": parameters, "lr": lr * rate}
            for (number, rate), parameters in parts.items()
        ]


class WholeNetwork(TransferTrick):
    """All layers learn at one rate."""

    neutral: ClassVar[bool] = True
    kind: Literal["all"] = "all"

    def rate(self, place: float) -> float:
        del place
        return 1.0


class DiscriminativeRates(TransferTrick):
    """η_i = η·first^(1 − i/(L − 1)) for the i-th of L layers (Howard and Ruder, 2018).

    The head learns at the full rate, the first layer at the share `first` of it: what early layers
    see in images or words is much the same for all tasks.

    When it helps: for pretrained networks on data like those that they were trained on. The less alike
    the data are, the nearer to 1 `first` should be.
    """

    searched: ClassVar[bool] = False
    kind: Literal["discriminative"] = "discriminative"
    first: Annotated[float, Float(1e-3, 1.0, log=True)] = Field(0.1, gt=0, le=1)

    def rate(self, place: float) -> float:
        return float(self.first ** (1 - place))


class FrozenLayers(TransferTrick):
    """The first `share` of the layers stays as it is, its norms use the statistics that they have.

    The head is never frozen. Early layers are the general ones (Yosinski et al., 2014).

    When it helps: for pretrained networks with few samples of a similar kind; it saves time too. With
    many samples let all layers learn.
    """

    searched: ClassVar[bool] = False
    kind: Literal["frozen"] = "frozen"
    share: Annotated[float, Float(0.3, 0.9)] = Field(0.5, ge=0, le=1)

    def freeze(self, module: nn.Module) -> list[nn.Module]:
        layers = weighted_layers(module)
        count = min(int(self.share * len(layers)), len(layers) - 1)
        if count < 1:
            return []
        kept = []
        for part in module.modules():
            if part is layers[count]:
                break
            for parameter in part.parameters(recurse=False):
                parameter.requires_grad_(False)
            if isinstance(part, (*NORMS, *DROPOUTS)):
                kept.append(part)
        return kept

    def rate(self, place: float) -> float:
        del place
        return 1.0


def places(module: nn.Module) -> dict[int, float]:
    """Return where each parameter stands, by its id: 0 in the first layer, 1 in the head."""
    layers = {id(layer): number for number, layer in enumerate(weighted_layers(module))}
    last = len(layers) - 1
    found: dict[int, float] = {}
    number = 0
    for part in module.modules():
        number = layers.get(id(part), number)
        for parameter in part.parameters(recurse=False):
            found.setdefault(id(parameter), number / last if last > 0 else 1.0)
    return found


Transfer = WholeNetwork | DiscriminativeRates | FrozenLayers
