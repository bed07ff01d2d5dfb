"""Dropout: zero a share of the inputs of the linear layers while training."""

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import nn

from lightning_tricks.errors import InputError
from lightning_tricks.space.domains import Float
from lightning_tricks.space.trick import Trick
from lightning_tricks.surgery.dropout import UniformDropout
from lightning_tricks.surgery.layers import DROPOUTS, Weighted, called_layers
from lightning_tricks.surgery.replace import put_beside
from lightning_tricks.surgery.torch_internals import BatchNormLayer


class DropoutTrick(Trick):
    """Which share of the inputs of a layer is zeroed while training."""

    @abstractmethod
    def apply(self, module: nn.Module) -> None:
        """Change the dropout of a module in place.

        Raises:
            InputError: if there is no layer whose inputs could be dropped.
        """


class NoDropout(DropoutTrick):
    """No dropout; the layers for it that the backbone has are switched off."""

    neutral: ClassVar[bool] = True
    kind: Literal["none"] = "none"

    def apply(self, module: nn.Module) -> None:
        set_rate(module, 0.0)


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
        if not set_rate(module, self.p) and not insert_dropout(module, self.p):
            raise InputError(
                "dropout found nothing to act on: looked for nn.Dropout, and for nn.Linear other "
                "than the first layer with no batch norm after it"
            )


def set_rate(module: nn.Module, p: float) -> int:
    """Set the rate of the dropout layers that a module has; return how many there are."""
    layers = [layer for layer in module.modules() if isinstance(layer, DROPOUTS)]
    for layer in layers:
        layer.p = p  # type: ignore[assignment]  # a plain attribute of torch's dropout layers
    inside = [
        m for m in module.modules() if isinstance(m, nn.MultiheadAttention | nn.RNNBase) and m.dropout
    ]
    for holder in inside:
        holder.dropout = p
    return len(layers) + len(inside)


def insert_dropout(module: nn.Module, p: float) -> int:
    """Put a dropout layer before each linear layer where it does no harm; return how many."""
    places = _places(module)
    for layer in places:
        put_beside(module, layer, before=UniformDropout(p))
    return len(places)


def _places(module: nn.Module) -> list[nn.Module]:
    """Find the linear layers, the first layer aside, that no batch norm comes after."""
    called = {id(layer) for layer in called_layers(module)}
    found: list[nn.Module] = []
    first = True
    for layer in module.modules():
        if isinstance(layer, BatchNormLayer):
            found.clear()
        elif isinstance(layer, Weighted):
            if isinstance(layer, nn.Linear) and not first and id(layer) in called:
                found.append(layer)
            first = False
    return found


AnyDropout = NoDropout | Dropout
