"""Networks with a searchable shape, as fields of a user's own recipe.

Example:
    class MyTricks(Tricks):
        network: MLP | ConvNet | Torchvision = Field(default=MLP(), discriminator="kind")

Depths and widths have upper limits: a typo could otherwise fill the memory.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torchvision import models

from lightning_tricks.errors import InputError
from lightning_tricks.space.domains import Choice, Int
from lightning_tricks.space.trick import Trick
from lightning_tricks.surgery.replace import replace_everywhere


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

    With `residual`, each hidden layer except the first is added to its inputs.
    """

    kind: Literal["mlp"] = "mlp"
    depth: Annotated[int, Int(1, 8)] = Field(default=2, ge=1, le=1000)
    width: Annotated[int, Int(32, 512, log=True)] = Field(default=128, ge=1, le=2**14)
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

    The first stage has `width` channels, and each next stage doubles them. With `residual`, each
    stage has a second convolution, which is added to its inputs.
    """

    kind: Literal["convnet"] = "convnet"
    depth: Annotated[int, Int(1, 3)] = Field(default=2, ge=1, le=16)
    width: Annotated[int, Int(8, 64, log=True)] = Field(default=16, ge=1, le=2**10)
    residual: Annotated[bool, Choice(False, True)] = False

    def build(self, inputs: Sequence[int], outputs: int) -> nn.Module:
        if len(inputs) != 3 or min(inputs[1:]) < 2**self.depth:
            raise InputError(
                f"a convnet of depth {self.depth} needs samples of shape (channels, height, width) "
                f"with at least {2**self.depth} pixels per side (got {tuple(inputs)})"
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


SMALL = 64
"""Images with fewer pixels per side count as small. Torchvision's classifiers were made for 224."""


def _published(name: str) -> str:
    if name not in models.list_models(module=models):
        raise ValueError(f"must be a classifier of torchvision, such as resnet18 (got {name!r})")
    return name


class Torchvision(Backbone):
    """A torchvision classifier by name, with new weights.

    The first convolution takes as many channels as the images have. If images are below 64 pixels per
    side, a first convolution of stride 2 becomes 3×3 with stride 1, without pooling after it (He et
    al., 2016, on CIFAR-10).
    """

    kind: Literal["torchvision"] = "torchvision"
    name: Annotated[
        str,
        AfterValidator(_published),
        Choice("resnet18", "resnet34", "googlenet", "mobilenet_v3_small", "densenet121"),
    ] = "resnet18"

    def build(self, inputs: Sequence[int], outputs: int) -> nn.Module:
        if len(inputs) != 3:
            raise InputError(
                f"{self.name} needs samples of shape (channels, height, width) (got {tuple(inputs)})"
            )
        # GoogLeNet and Inception draw weights from truncated normals, which takes seconds.
        own = {"init_weights": False} if self.name in ("googlenet", "inception_v3") else {}
        network: nn.Module = models.get_model(self.name, weights=None, num_classes=outputs, **own)
        _fit_stem(network, inputs[0], small=min(inputs[1:]) < SMALL)
        return network


def _fit_stem(network: nn.Module, channels: int, small: bool) -> None:
    """Adapt the first convolution of a network to a number of channels, and to small images."""
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    whole = small and first.stride == (2, 2)
    if not whole and first.in_channels == channels:
        return
    stem = nn.Conv2d(
        channels,
        first.out_channels,
        3 if whole else first.kernel_size,  # type: ignore[arg-type]  # of two numbers
        stride=1 if whole else first.stride,  # type: ignore[arg-type]
        padding=1 if whole else first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    replace_everywhere(network, first, stem)
    pool = next((layer for layer in network.modules() if isinstance(layer, nn.MaxPool2d)), None)
    if whole and pool is not None:
        replace_everywhere(network, pool, nn.Identity())
