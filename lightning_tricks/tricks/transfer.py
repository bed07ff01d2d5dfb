"""Fine-tuning: which layers of a pretrained network learn, and how fast.

Layers are modules with weights, in the order in which they run. A module between two layers, such as a
norm, belongs to the layer before it.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from lightning_tricks.errors import InputError
from lightning_tricks.space.domains import Float
from lightning_tricks.space.trick import Trick
from lightning_tricks.surgery.anatomy import modules_of, parameters_of
from lightning_tricks.surgery.layers import DROPOUTS
from lightning_tricks.surgery.norms import NORMS
from lightning_tricks.surgery.watch import anatomy_of

_OUTPUTS_ONLY = "all layers are outputs"


class TransferTrick(Trick):
    """How the layers of a pretrained network learn."""

    changes_weights: ClassVar[bool] = True
    structural: ClassVar[Literal["", "kind", "fields"]] = "fields"

    def freeze(self, module: nn.Module) -> list[nn.Module]:
        """Freeze layers of a module; return the modules that must stay in evaluation mode.

        Raises:
            InputError: if the trick would act on nothing.
        """
        del module
        return []

    @abstractmethod
    def rate(self, place: float) -> float:
        """Return the factor on the learning rate of a layer.

        Args:
            place: the place of the layer: 0 for the first, 1 for the outputs.
        """

    def split(self, groups: Sequence[dict[str, Any]], module: nn.Module, lr: float) -> list[Any]:
        """Split optimizer groups so that each has one learning rate.

        Args:
            groups: optimizer groups of the module's parameters.
            module: the module.
            lr: the learning rate of the outputs.
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


class OwnParameters(TransferTrick):
    """The parameters that the LightningModule's own optimizer trains learn at one rate.

    So a linear probe stays a linear probe.
    """

    searched: ClassVar[bool] = False
    kind: Literal["own"] = "own"

    def freeze(self, module: nn.Module) -> list[nn.Module]:
        held, modules = parameters_of(module), modules_of(module)
        for name in anatomy_of(module).idle:
            owner = modules.get(name.rpartition(".")[0])
            replaced = [] if owner is None else owner.parameters()  # of another norm, or of weight norm
            for parameter in [held[name]] if name in held else replaced:
                parameter.requires_grad_(False)
        return []

    def rate(self, place: float) -> float:
        del place
        return 1.0


class DiscriminativeRates(TransferTrick):
    """η_i = η·first^(1 − i/(L − 1)) for the i-th of L layers (Howard and Ruder, 2018).

    Outputs learn at the full rate η, the first layer at `first`·η. What early layers detect in images
    or words is much the same for all tasks.

    When it helps: for pretrained networks, on data similar to their training data. The less similar the
    data are, the closer to 1 `first` should be.
    """

    searched: ClassVar[bool] = False
    kind: Literal["discriminative"] = "discriminative"
    first: Annotated[float, Float(1e-3, 1.0, log=True)] = Field(default=0.1, gt=0, le=1)

    def freeze(self, module: nn.Module) -> list[nn.Module]:
        if not anatomy_of(module).hidden:
            raise InputError(f"transfer {self.kind!r} would change no learning rate: {_OUTPUTS_ONLY}")
        return []

    def rate(self, place: float) -> float:
        return float(self.first ** (1 - place))


class FrozenLayers(TransferTrick):
    """The first `share` of the layers is frozen; their norms keep their statistics.

    Outputs, and layers tied to them, are never frozen. Early layers are the general ones (Yosinski et
    al., 2014).

    When it helps: for pretrained networks, with few samples of a similar kind. It also saves time. With
    many samples, let all layers learn.
    """

    searched: ClassVar[bool] = False
    kind: Literal["frozen"] = "frozen"
    share: Annotated[float, Float(0.3, 0.9)] = Field(default=0.5, gt=0, le=1)

    def freeze(self, module: nn.Module) -> list[nn.Module]:
        hidden = len(anatomy_of(module).hidden)
        if not hidden:
            raise InputError(f"transfer {self.kind!r} found nothing to freeze: {_OUTPUTS_ONLY}")
        count = min(max(int(self.share * (hidden + 1)), 1), hidden)
        of_parameter, of_module = places(module), module_places(module)
        for parameter in module.parameters():
            if of_parameter[id(parameter)] < count / hidden:
                parameter.requires_grad_(False)
        return [
            part
            for path, part in modules_of(module).items()
            if isinstance(part, (*NORMS, *DROPOUTS)) and of_module[path] < count / hidden
        ]

    def rate(self, place: float) -> float:
        del place
        return 1.0


def places(network: nn.Module) -> dict[int, float]:
    """Return the place of each parameter, by its id: 0 in the first layer, 1 in the outputs.

    A parameter that is used in several places counts for the last one.
    """
    of_module = module_places(network)
    found: dict[int, float] = {}
    for path, module in modules_of(network).items():
        for parameter in module.parameters(recurse=False):
            found[id(parameter)] = max(of_module[path], found.get(id(parameter), 0.0))
    held = parameters_of(network)
    tied = [layer.weights for layer in anatomy_of(network).layers if layer.tied]
    return found | {id(held[w.name]): 1.0 for weights in tied for w in weights if w.name in held}


def module_places(network: nn.Module) -> dict[str, float]:
    """Return the place of each module, by its path: 0 in the first layer, 1 in the outputs."""
    anatomy, modules = anatomy_of(network), modules_of(network)
    steps = len(anatomy.hidden)
    layers = {layer.path: 1.0 for layer in anatomy.layers if layer.output}
    layers |= {layer.path: number / steps for number, layer in enumerate(anatomy.hidden)}
    found: dict[str, float] = {}
    place = 0.0 if steps else 1.0
    for path in anatomy.runs or modules:
        found[path] = layers.get(path, place)
        place = place if found[path] == 1 else found[path]
    for path in modules:
        if path not in found:
            outer = path
            while outer and outer not in found:
                outer = outer.rpartition(".")[0]
            found[path] = layers.get(path, found.get(outer, 0.0 if steps else 1.0))
    return found


Transfer = WholeNetwork | DiscriminativeRates | FrozenLayers
