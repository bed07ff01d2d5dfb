"""The recipe types of the studies: all tricks, plus what each study also searches.

They have their own file, so that other programs can import them (`from recipes import DigitsTricks`),
and a study imports them only after it has read its command line.
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
    """Every trick of an image classifier, and the choice of the network."""

    network: Annotated[Literal["resnet18", "googlenet"], Choice("resnet18", "googlenet")] = "resnet18"
    augmentation: Annotated[Augmentation, Choice("none", "flip_crop", "trivial", "rand")] = Field(
        FlipCrop(), discriminator="kind"
    )


class ResNetTricks(ImageTricks):
    """Every trick of an image classifier with residual branches."""

    zero_gamma: Annotated[residual.AnyZeroGamma, Choice("none", "zero_gamma")] = Field(
        residual.NoZeroGamma(), discriminator="kind"
    )
    stochastic_depth: Annotated[residual.AnyStochasticDepth, Choice("none", "linear")] = Field(
        residual.NoStochasticDepth(), discriminator="kind"
    )
