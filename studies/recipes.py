"""The types of the studies' recipes: all tricks, and what each study searches besides.

They stand in a file of their own so that other programs can import them, `from recipes import
DigitsTricks`, and a study imports them once its command line was read.
"""

from typing import Annotated, Literal

from pydantic import Field

from lightning_tricks import MLP, Choice, ImageTricks, Tricks
from lightning_tricks.tricks import residual
from lightning_tricks.tricks.augmentation import Augmentation, FlipCrop


class DigitsTricks(Tricks):
    """Every trick, and the shape of the network for digits."""

    network: MLP = Field(MLP(depth=2, width=128))


class TableTricks(Tricks):
    """Every trick, and the shape of a network for a small table."""

    network: MLP = Field(MLP(depth=2, width=64))


class Cifar10Tricks(ImageTricks):
    """Every trick of a classifier of images, and which network."""

    network: Annotated[Literal["resnet18", "googlenet"], Choice("resnet18", "googlenet")] = "resnet18"
    augmentation: Annotated[Augmentation, Choice("none", "flip_crop", "trivial", "rand")] = Field(
        FlipCrop(), discriminator="kind"
    )


class ResNetTricks(ImageTricks):
    """Every trick of a classifier of images with residual branches."""

    zero_gamma: Annotated[residual.AnyZeroGamma, Choice("none", "zero_gamma")] = Field(
        residual.NoZeroGamma(), discriminator="kind"
    )
    stochastic_depth: Annotated[residual.AnyStochasticDepth, Choice("none", "linear")] = Field(
        residual.NoStochasticDepth(), discriminator="kind"
    )
