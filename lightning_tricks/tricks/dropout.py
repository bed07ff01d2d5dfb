"""Dropout: zero a share of the inputs of the linear layers while training."""

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
    """Which share of the inputs of a layer is zeroed while training."""

    changes_layers: ClassVar[bool] = True
    structural: ClassVar[Literal["", "kind", "fields"]] = "kind"

    @abstractmethod
    def apply(self, module: nn.Module) -> None:
        """Change the dropout of a module in place.

        Raises:
            InputError: if there is no layer whose inputs could be dropped.
        """


class NoDropout(DropoutTrick):
    """No dropout; the layers and functions for it that the backbone has are switched off."""

    neutral: ClassVar[bool] = True
    kind: Literal["none"] = "none"

    def apply(self, module: nn.Module) -> None:
        _check_switchable(self.kind, module)
        set_rate(module, 0.0)


class OwnDropout(DropoutTrick):
    """The dropout that the backbone has, as it is.

    When it helps: where its places and rates were chosen with care.
    """

    searched: ClassVar[bool] = False
    kind: Literal["own"] = "own"

    def apply(self, module: nn.Module) -> None:
        del module


class Dropout(DropoutTrick):
    """x ← mask·x/(1 − p), where the mask is 0 with probability p (Srivastava et al., 2014).

    `p` is the share that is removed, as in the lesson and in torch. It acts on the inputs of linear
    layers, the first layer of the network aside. Where batch norm would follow, it would see another
    variance in training than in use (Li et al., 2019): beside batch norm dropout stands after the
    last norm only. A backbone with dropout layers of its own keeps their places and gets the rate.

    When it helps: with few samples for the size of the network, wide linear layers and many epochs. It
    acts against overfitting and does not speed up training; beside batch norm take small rates.
    """

    kind: Literal["dropout"] = "dropout"
    p: Annotated[float, Float(0.05, 0.5)] = Field(0.1, gt=0, lt=1)

    def apply(self, module: nn.Module) -> None:
        _check_switchable(self.kind, module)
        if not set_rate(module, self.p) and not insert_dropout(module, self.p):
            raise InputError(
                "dropout found nothing to act on: looked for dropout layers and functions, and for "
                "linear layers other than the first with no batch norm after them"
            )


def set_rate(network: nn.Module, p: float) -> int:
    """Set the rate of the dropout that a network has, in layers and functions; return how often."""
    layers = [layer for layer in network.modules() if isinstance(layer, DROPOUTS)]
    for layer in layers:
        layer.p = p  # type: ignore[assignment]  # a plain attribute of torch's dropout layers
    inside = [
        m for m in network.modules() if isinstance(m, nn.MultiheadAttention | nn.RNNBase) and m.dropout
    ]
    for holder in inside:
        holder.dropout = p
    modules, called = modules_of(network), anatomy_of(network).draws
    for draw in called:
        setattr(modules[draw.path], draw.attribute, p)
    return len(layers) + len(inside) + len(called)


def _check_switchable(kind: str, network: nn.Module) -> None:
    """Check that the rate of each dropout that is called as a function stands in an attribute.

    Raises:
        InputError: if one does not.
    """
    for draw in anatomy_of(network).draws:
        if not draw.attribute:
            raise InputError(
                f"dropout {kind!r} cannot change the rate {draw.rate:g} of the dropout function that "
                f"{draw.path or 'the network'} calls, for no attribute holds it: set dropout to 'own'"
            )


def insert_dropout(network: nn.Module, p: float) -> int:
    """Put dropout before each linear layer where it does no harm; return how often."""
    places = _places(network)
    for layer in places:
        attach(layer, DROPOUT, UniformDropout(p))
    return len(places)


def _places(network: nn.Module) -> list[nn.Module]:
    """Find the linear layers, the first layer aside, that no batch norm runs after."""
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
