"""Weight initialization, from the true fans of each layer.

Biases become zero. Output layers, which no activation follows, get the gain 1; so do recurrent layers
and attention. Layers whose weights are tied, parametrized or zero on purpose stay unchanged.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lightning_tricks.errors import InputError
from lightning_tricks.space.domains import Float
from lightning_tricks.space.trick import Trick
from lightning_tricks.surgery.anatomy import Fans, Layer, Weight, parameters_of
from lightning_tricks.surgery.layers import LOOKED_FOR
from lightning_tricks.surgery.watch import anatomy_of
from lightning_tricks.surgery.weight_norm import trained_weights


class InitializationTrick(Trick):
    """How the weights of layers are drawn."""

    changes_weights: ClassVar[bool] = True

    kind: str

    def apply(self, module: nn.Module) -> None:
        """Redraw the weights of every layer of a network in place.

        Call it before weight norm is applied: a computed weight cannot be drawn.

        Raises:
            InputError: if the network has no weight that may be drawn.
        """
        anatomy = anatomy_of(module)
        weights = trained_weights(module, anatomy)
        found = [w for w in weights if w[0].trained and not (w[0].tied or w[0].kept)]
        if not found:
            raise InputError(
                f"initialization {self.kind!r} found nothing to draw: looked for {LOOKED_FOR}; to keep "
                "the weights, set initialization to 'keep'"
            )
        held = parameters_of(module)
        for layer, weight, parameter in found:
            plain = layer.output or weight.parts > 1 or len(layer.weights) > 1
            with torch.no_grad():
                for part in _matrices(parameter, layer, weight):
                    drawn = torch.empty_like(part, memory_format=torch.contiguous_format)
                    self.draw(drawn, weight.fans, head=plain)
                    part.copy_(drawn)
            for bias in layer.biases:
                if bias in held and held[bias].requires_grad:
                    nn.init.zeros_(held[bias])

    @abstractmethod
    def draw(self, weight: Tensor, fans: Fans, head: bool) -> None:
        """Draw a weight in place.

        Args:
            weight: the weight of one layer, or of one gate.
            fans: its true fans.
            head: whether no activation such as ReLU follows.
        """


def _matrices(parameter: Tensor, layer: Layer, weight: Weight) -> Iterator[Tensor]:
    """Walk views of the matrices or kernels that a weight holds."""
    if layer.dims is None and parameter.dim() > 2:
        yield from parameter.flatten(0, -3)
        return
    for block in parameter.chunk(weight.blocks):
        yield from block.chunk(weight.parts, weight.unit)


class _AsItIs(InitializationTrick):
    """No weight is drawn."""

    def apply(self, module: nn.Module) -> None:
        del module

    def draw(self, weight: Tensor, fans: Fans, head: bool) -> None:
        del weight, fans, head


class TorchInitialization(_AsItIs):
    """The weights that torch drew when it made the layer: U(±1/√n_in), also for biases."""

    neutral: ClassVar[bool] = True
    kind: Literal["torch"] = "torch"


class KeepInitialization(_AsItIs):
    """The network's own weights, such as pretrained ones.

    If the baseline of a study keeps them, every trial keeps them.

    When it helps: if the network is pretrained. A new head keeps the weights that torch drew.
    """

    searched: ClassVar[bool] = False
    kind: Literal["keep"] = "keep"


class UniformInitialization(InitializationTrick):
    """w ~ U(±bound/√n_in); bound 1 is a usual heuristic (Glorot and Bengio, 2010).

    When it helps: in shallow networks, or if you search the bound: √3 keeps the signal of linear
    layers, √6 is `he_uniform`. With bound 1 the signal fades in deep networks without norms.
    """

    kind: Literal["uniform"] = "uniform"
    bound: Annotated[float, Float(0.5, 3.0, log=True)] = Field(default=1.0, gt=0)

    def draw(self, weight: Tensor, fans: Fans, head: bool) -> None:
        del head
        bound = self.bound / math.sqrt(fans.inputs)
        nn.init.uniform_(weight, -bound, bound)


class _Normal(InitializationTrick):
    """w ~ N(0, std²), with the std of the variant."""

    def draw(self, weight: Tensor, fans: Fans, head: bool) -> None:
        nn.init.normal_(weight, std=self.std(fans, head))

    @abstractmethod
    def std(self, fans: Fans, head: bool) -> float:
        """Return the standard deviation of the weights of one layer."""


class StandardNormal(_Normal):
    """w ~ N(0, 1): the negative control. A sum over n inputs has the std √n.

    When it helps: never. It shows what a wrong scale does: the signal explodes with depth.
    """

    searched: ClassVar[bool] = False
    kind: Literal["normal"] = "normal"

    def std(self, fans: Fans, head: bool) -> float:
        del fans, head
        return 1.0


class GaussianInitialization(_Normal):
    """w ~ N(0, std = 1/n_in): the signal fades with depth.

    With 1/n_in as the variance, it is `lecun_normal`.

    When it helps: in networks with norms, which undo the scale, and as a comparison. Deep networks
    without norms do not train with it.
    """

    kind: Literal["gaussian"] = "gaussian"

    def std(self, fans: Fans, head: bool) -> float:
        del head
        return 1 / fans.inputs


class LecunNormal(_Normal):
    """w ~ N(0, std = 1/√n_in): keeps the std of the signal in linear layers (LeCun et al., 1998).

    When it helps: in networks of tanh, SELU or linear layers. Each ReLU halves the variance of its
    signal, so deep ReLU networks need `he_normal`.
    """

    kind: Literal["lecun_normal"] = "lecun_normal"

    def std(self, fans: Fans, head: bool) -> float:
        del head
        return 1 / math.sqrt(fans.inputs)


class GlorotNormal(_Normal):
    """w ~ N(0, std = √(2/(n_in + n_out))) (Glorot and Bengio, 2010).

    When it helps: in networks of tanh or sigmoid layers, and where layers have different numbers of
    inputs and outputs. With ReLU the signal fades with depth.
    """

    kind: Literal["glorot_normal"] = "glorot_normal"

    def std(self, fans: Fans, head: bool) -> float:
        del head
        return math.sqrt(2 / (fans.inputs + fans.outputs))


class GlorotUniform(InitializationTrick):
    """w ~ U(±√(6/(n_in + n_out))) (Glorot and Bengio, 2010).

    When it helps: where `glorot_normal` does. It draws no outliers.
    """

    kind: Literal["glorot_uniform"] = "glorot_uniform"

    def draw(self, weight: Tensor, fans: Fans, head: bool) -> None:
        del head
        bound = math.sqrt(6 / (fans.inputs + fans.outputs))
        nn.init.uniform_(weight, -bound, bound)


class HeNormal(_Normal):
    """w ~ N(0, std = √(2/n_in)): keeps the signal through ReLU (He et al., 2015).

    When it helps: in networks with ReLU or similar activations, above all in deep ones with few norms.
    It is a little large for tanh.
    """

    kind: Literal["he_normal"] = "he_normal"

    def std(self, fans: Fans, head: bool) -> float:
        return math.sqrt((1 if head else 2) / fans.inputs)


class HeUniform(InitializationTrick):
    """w ~ U(±√(6/n_in)), with the same std as `he_normal` (He et al., 2015).

    When it helps: where `he_normal` does. It draws no outliers.
    """

    kind: Literal["he_uniform"] = "he_uniform"

    def draw(self, weight: Tensor, fans: Fans, head: bool) -> None:
        bound = math.sqrt((3 if head else 6) / fans.inputs)
        nn.init.uniform_(weight, -bound, bound)


class Orthogonal(InitializationTrick):
    """Orthonormal rows or columns, times `gain`; √2 suits ReLU (Saxe et al., 2014).

    When it helps: in deep networks without norms, and in recurrent ones. The draw factorizes each
    weight, which is slow for very wide layers.
    """

    kind: Literal["orthogonal"] = "orthogonal"
    gain: float = Field(default=math.sqrt(2), gt=0)

    def draw(self, weight: Tensor, fans: Fans, head: bool) -> None:
        del fans
        nn.init.orthogonal_(weight, 1.0 if head else self.gain)


Initialization = (
    TorchInitialization
    | KeepInitialization
    | UniformInitialization
    | StandardNormal
    | GaussianInitialization
    | LecunNormal
    | GlorotNormal
    | GlorotUniform
    | HeNormal
    | HeUniform
    | Orthogonal
)
