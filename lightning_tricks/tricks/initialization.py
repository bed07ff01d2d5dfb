"""Weight initialisation of the layers of a network, with their true fans.

Biases become zero. Outputs, which no activation follows, get the gain 1, and so do recurrent layers and
attention. Layers whose weights are tied to others, parametrized or zero on purpose stay as they are.
"""

import math
from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lightning_tricks.errors import InputError
from lightning_tricks.space.domains import Float
from lightning_tricks.space.trick import Trick
from lightning_tricks.surgery.anatomy import Fans, parameters_of
from lightning_tricks.surgery.layers import LOOKED_FOR
from lightning_tricks.surgery.watch import anatomy_of
from lightning_tricks.surgery.weight_norm import trained_weights


class InitializationTrick(Trick):
    """How the weights of layers are drawn."""

    changes_weights: ClassVar[bool] = True

    kind: str

    def apply(self, module: nn.Module) -> None:
        """Draw the weights of every layer of a network again, in place.

        Before weight norm is put on: a weight that is computed cannot be drawn.

        Raises:
            InputError: if there is no weight that may be drawn.
        """
        anatomy = anatomy_of(module)
        weights = trained_weights(module, anatomy)
        found = [w for w in weights if w[0].trained and not (w[0].tied or w[0].kept)]
        if not found:
            raise InputError(
                f"initialization {self.kind!r} found nothing to draw: looked for {LOOKED_FOR}; to keep "
                "the weights as they are, set initialization to 'keep'"
            )
        held = parameters_of(module)
        for layer, weight, parameter in found:
            plain = layer.output or weight.parts > 1 or len(layer.weights) > 1
            with torch.no_grad():
                for part in parameter.chunk(weight.parts, weight.unit):
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
            weight: of one layer, or one gate of it.
            fans: its true ones.
            head: whether no activation such as ReLU follows.
        """


class _AsItIs(InitializationTrick):
    """No weight is drawn."""

    def apply(self, module: nn.Module) -> None:
        del module

    def draw(self, weight: Tensor, fans: Fans, head: bool) -> None:
        del weight, fans, head


class TorchInitialization(_AsItIs):
    """What torch drew when the layer was made: U(±1/√n_in) for weights and biases alike."""

    neutral: ClassVar[bool] = True
    kind: Literal["torch"] = "torch"


class KeepInitialization(_AsItIs):
    """The weights that the network comes with, such as pretrained ones.

    A study whose baseline keeps them keeps them in every trial.

    When it helps: where the network was trained before. The new head stays as torch drew it.
    """

    searched: ClassVar[bool] = False
    kind: Literal["keep"] = "keep"


class UniformInitialization(InitializationTrick):
    """w ~ U(±bound/√n_in); bound 1 is a usual heuristic (Glorot and Bengio, 2010).

    When it helps: in shallow networks, or with the bound searched: √3 keeps the signal of linear layers,
    √6 is `he_uniform`. With bound 1 the signal fades in deep networks without norms.
    """

    kind: Literal["uniform"] = "uniform"
    bound: Annotated[float, Float(0.5, 3.0, log=True)] = Field(1.0, gt=0)

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

    When it helps: never, but to see what a wrong scale does: the signal explodes with depth.
    """

    searched: ClassVar[bool] = False
    kind: Literal["normal"] = "normal"

    def std(self, fans: Fans, head: bool) -> float:
        del fans, head
        return 1.0


class GaussianInitialization(_Normal):
    """w ~ N(0, std = 1/n_in), as the lesson words it: the signal fades with depth.

    Read as a variance, 1/n_in is `lecun_normal`.

    When it helps: to see what the lesson says, and behind norms, which undo the scale. Deep networks
    without norms do not train with it.
    """

    kind: Literal["gaussian"] = "gaussian"

    def std(self, fans: Fans, head: bool) -> float:
        del head
        return 1 / fans.inputs


class LecunNormal(_Normal):
    """w ~ N(0, std = 1/√n_in): keeps the std of the signal in linear layers (LeCun et al., 1998).

    When it helps: in networks of tanh, SELU or linear layers. Each ReLU halves the variance of its
    signal, so deep networks of those want `he_normal`.
    """

    kind: Literal["lecun_normal"] = "lecun_normal"

    def std(self, fans: Fans, head: bool) -> float:
        del head
        return 1 / math.sqrt(fans.inputs)


class GlorotNormal(_Normal):
    """w ~ N(0, std = √(2/(n_in + n_out))) (Glorot and Bengio, 2010).

    When it helps: in networks of tanh or sigmoid layers, and where layers have more outputs than inputs
    or fewer. Under ReLU the signal fades with depth.
    """

    kind: Literal["glorot_normal"] = "glorot_normal"

    def std(self, fans: Fans, head: bool) -> float:
        del head
        return math.sqrt(2 / (fans.inputs + fans.outputs))


class GlorotUniform(InitializationTrick):
    """w ~ U(±√(6/(n_in + n_out))) (Glorot and Bengio, 2010).

    When it helps: where `glorot_normal` does; a draw has no outliers.
    """

    kind: Literal["glorot_uniform"] = "glorot_uniform"

    def draw(self, weight: Tensor, fans: Fans, head: bool) -> None:
        del head
        bound = math.sqrt(6 / (fans.inputs + fans.outputs))
        nn.init.uniform_(weight, -bound, bound)


class HeNormal(_Normal):
    """w ~ N(0, std = √(2/n_in)): keeps the signal through ReLU (He et al., 2015).

    When it helps: in networks of ReLU and its relatives, the more layers and the fewer norms they have.
    It is a little large for tanh.
    """

    kind: Literal["he_normal"] = "he_normal"

    def std(self, fans: Fans, head: bool) -> float:
        return math.sqrt((1 if head else 2) / fans.inputs)


class HeUniform(InitializationTrick):
    """w ~ U(±√(6/n_in)), of the same std as `he_normal` (He et al., 2015).

    When it helps: where `he_normal` does; a draw has no outliers.
    """

    kind: Literal["he_uniform"] = "he_uniform"

    def draw(self, weight: Tensor, fans: Fans, head: bool) -> None:
        bound = math.sqrt((3 if head else 6) / fans.inputs)
        nn.init.uniform_(weight, -bound, bound)


class Orthogonal(InitializationTrick):
    """Rows or columns orthonormal, times the gain; √2 suits ReLU (Saxe et al., 2014).

    When it helps: in deep networks without norms, and recurrent ones. The draw factorizes each weight,
    which takes a while in very wide layers.
    """

    kind: Literal["orthogonal"] = "orthogonal"
    gain: float = Field(math.sqrt(2), gt=0)

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
