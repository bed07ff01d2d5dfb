"""Two small networks whose shape is searchable, as fields of a user's own record.

Example:
    class MyTricks(Tricks):
        network: MLP | ConvNet = Field(MLP(), discriminator="kind")

Both are made of `nn.Sequential`, where every trick finds its place.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from lightning_tricks.errors import InputError
from lightning_tricks.space import Choice, Int, Trick


class Backbone(Trick):
    """The shape of a network."""

    @abstractmethod
    def build(self, inputs: Sequence[int], outputs: int) -> nn.Module:
        """Return a new network.

        Args:
            inputs: the shape of one sample.
            outputs: the number of classes.

        Raises:
            InputError: if the network does not take samples of this shape.
        """


class Residual(nn.Module):
    """x + f(x) (He et al., 2016)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = inputs + self.branch(inputs)
        return found


class MLP(Backbone):
    """Flatten, `depth` hidden layers of `width` ReLU units, and a linear head.

    With `residual`, each hidden layer but the first is added to its inputs.
    """

    kind: Literal["mlp"] = "mlp"
    depth: Annotated[int, Int(1, 8)] = Field(2, ge=1)
    width: Annotated[int, Int(32, 512, log=True)] = Field(128, ge=1)
    residual: Annotated[bool, Choice(False, True)] = False

    def build(self, inputs: Sequence[int], outputs: int) -> nn.Module:
        layers: list[nn.Module] = [
            nn.Flatten(),
            nn.Linear(math.prod(inputs), self.width),
            nn.ReLU(),
        ]
        for _ in range(self.depth - 1):
            block = [nn.Linear(self.width, self.width), nn.ReLU()]
            layers += [Residual(*block)] if self.residual else block
        return nn.Sequential(*layers, nn.Linear(self.width, outputs))


class ConvNet(Backbone):
    """`depth` stages of 3×3 convolution, ReLU and 2×2 max-pooling, then a hidden layer and a head.

    The first stage has `width` channels and each following one twice as many. With `residual`, a
    stage has a second convolution, which is added to its inputs.
    """

    kind: Literal["convnet"] = "convnet"
    depth: Annotated[int, Int(1, 3)] = Field(2, ge=1)
    width: Annotated[int, Int(8, 64, log=True)] = Field(16, ge=1)
    residual: Annotated[bool, Choice(False, True)] = False

    def build(self, inputs: Sequence[int], outputs: int) -> nn.Module:
        if len(inputs) != 3 or min(inputs[1:]) < 2**self.depth:
            raise InputError(
                f"a convnet of depth {self.depth} needs samples of shape (channels, height, width) "
                f"with at least {2**self.depth} pixels a side (got {tuple(inputs)})"
            )
        channels, height, width = inputs
        layers: list[nn.Module] = []
        for stage in range(self.depth):
            wide = self.width * 2**stage
            layers += [nn.Conv2d(channels, wide, 3, padding=1), nn.ReLU()]
            if self.residual:
                layers += [Residual(nn.Conv2d(wide, wide, 3, padding=1), nn.ReLU())]
            layers += [nn.MaxPool2d(2)]
            channels, height, width = wide, height // 2, width // 2
        hidden = 4 * self.width
        return nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(channels * height * width, hidden),
            nn.ReLU(),
            nn.Linear(hidden, outputs),
        )
