"""Dropout: zero a share of the inputs of linear layers during training."""

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import nn

from lightning_tricks.errors import InputError
from lightning_tricks.space.domains import Float
from lightning_tricks.space.trick import Trick
from lightning_tricks.surgery.anatomy import modules_of
from lightning_tricks.surgery.attach import DROPOUT, NORM, attach
from lightning_tricks.surgery.dropout import UniformDropout
from lightning_tricks.surgery.layers import DROPOUTS
from lightning_tricks.surgery.torch_internals import BatchNormLayer, submodules
from lightning_tricks.surgery.watch import anatomy_of


class DropoutTrick(Trick):
    """The share of a layer's inputs that is zeroed during training."""

    changes_layers: ClassVar[bool] = True
    structural: ClassVar[Literal["", "kind", "fields"]] = "kind"

    @abstractmethod
    def apply(self, module: nn.Module) -> None:
        """Change the dropout of a module in place.

        Raises:
            InputError: if there is no layer whose inputs could be dropped.
        """


class NoDropout(DropoutTrick):
    """No dropout. Dropout layers and functions of the backbone are switched off."""

    neutral: ClassVar[bool] = True
    kind: Literal["none"] = "none"

    def apply(self, module: nn.Module) -> None:
        _check_switchable(self.kind, module)
        set_rate(module, 0.0)


class OwnDropout(DropoutTrick):
    """The backbone's own dropout, unchanged.

    When it helps: if its places and rates were chosen with care.
    """

    searched: ClassVar[bool] = False
    kind: Literal["own"] = "own"

    def apply(self, module: nn.Module) -> None:
        del module


class Dropout(DropoutTrick):
    """x ← mask·x/(1 − p), where the mask is 0 with probability p (Srivastava et al., 2014).

    `p` is the share that is removed, as in torch. Dropout acts on the inputs of all linear layers
    except the network's first layer. With batch norm it acts only after the last batch norm, because a
    batch norm after it would see another variance in training than in use (Li et al., 2019). If the
    backbone has its own dropout layers, they keep their places and get the rate `p`.

    When it helps: with few samples for the size of the network, wide linear layers and many epochs. It
    reduces overfitting and does not speed up training. With batch norm, use small rates.
    """

    kind: Literal["dropout"] = "dropout"
    p: Annotated[float, Float(0.05, 0.5)] = Field(default=0.1, gt=0, lt=1)

    def apply(self, module: nn.Module) -> None:
        _check_switchable(self.kind, module)
        if not set_rate(module, self.p) and not insert_dropout(module, self.p):
            raise InputError(
                "dropout found nothing to act on: looked for dropout layers and functions, and for "
                "linear layers other than the first with no batch norm after them"
            )


def set_rate(network: nn.Module, p: float) -> int:
    """Set the rate of all dropout layers and functions of a network; return how many act."""
    modules, anatomy = modules_of(network), anatomy_of(network)
    acting = set()
    for path, module in modules.items():
        if isinstance(module, DROPOUTS):
            module.p = p  # type: ignore[assignment]  # a plain attribute of torch's dropout layers
        elif isinstance(module, nn.MultiheadAttention | nn.RNNBase) and module.dropout:
            module.dropout = p
        else:
            continue
        single = isinstance(module, nn.RNNBase) and module.num_layers == 1  # drops between layers
        if not single and (path in anatomy.runs or not anatomy.watched):
            acting.add(id(module))
    for draw in anatomy.draws:
        setattr(modules[draw.path], draw.attribute, p)
    return len(acting) + len(anatomy.draws)


def _check_switchable(kind: str, network: nn.Module) -> None:
    """Check that an attribute holds the rate of each dropout function that the network calls.

    Raises:
        InputError: if a rate is in no attribute.
    """
    for draw in anatomy_of(network).draws:
        if not draw.attribute:
            raise InputError(
                f"dropout {kind!r} cannot change the rate {draw.rate:g} of the dropout function that "
                f"{draw.path or 'the network'} calls: no attribute holds it; set dropout to 'own'"
            )


def insert_dropout(network: nn.Module, p: float) -> int:
    """Put dropout before each linear layer where it does no harm; return the number of layers."""
    places = _places(network)
    for layer in places:
        attach(layer, DROPOUT, UniformDropout(p))
    return len(places)


def _places(network: nn.Module) -> list[nn.Module]:
    """Return the linear layers with no batch norm after them, without the network's first layer."""
    anatomy, modules = anatomy_of(network), modules_of(network)
    layers = {layer.path: layer for layer in anatomy.layers if layer.trained}
    found: list[nn.Module] = []
    first = True
    for path in anatomy.runs or modules:
        module = modules.get(path)
        if isinstance(module, BatchNormLayer):
            found.clear()
        if module is None or path not in layers:
            continue
        if layers[path].called and layers[path].dims is None and not first:
            found.append(module)
        first = False
        if isinstance(submodules(module).get(NORM), BatchNormLayer):
            found.clear()
    return found


AnyDropout = NoDropout | OwnDropout | Dropout
