"""Training targets that are less certain than the data: label smoothing, mixup, CutMix.

They act in training only; validation uses the unchanged data. The loss must take a probability for each
class, as `torch.nn.functional.cross_entropy` does (`module/class_loss.py`).
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torchvision.transforms import v2

from lightning_tricks.errors import InputError
from lightning_tricks.space.domains import Float
from lightning_tricks.space.trick import Trick
from lightning_tricks.tricks.augmentation import check_images

PROBABLE = 1e-2
"""Largest distance from 1 of the sum of a sample's probabilities, which half precision rounds."""


def probabilities(targets: Tensor, classes: int) -> Tensor:
    """Return targets as a probability for each class.

    Args:
        targets: class numbers of shape (N, …); negative ones are ignored. Or probabilities of shape
            (N, classes, …), which stay unchanged.
        classes: the number of outputs.

    Returns:
        Probabilities of shape (N, classes, …); all of them are 0 for an ignored target.
    """
    if targets.is_floating_point():
        return targets
    certain = F.one_hot(targets.clamp(min=0), classes).movedim(-1, 1).float()
    return certain * (targets >= 0).unsqueeze(1)


def check_probabilities(targets: Tensor) -> None:
    """Check that targets are a probability for each class.

    Raises:
        InputError: if they are other numbers, which cannot be smoothed.
    """
    several = targets.dim() > 1 and targets.shape[1] > 1
    if not several or bool(((targets.sum(1) - 1).abs() > PROBABLE).any()):
        raise InputError(
            "label_smoothing needs classes, or a probability for each class: these targets are numbers "
            "to predict, or several labels per sample; set smoothing to 'none'"
        )


class SmoothingTrick(Trick):
    """How the training targets are smoothed."""

    changes_batch: ClassVar[bool] = True
    needs_forward: ClassVar[bool] = True

    @abstractmethod
    def smooth(self, targets: Tensor, classes: int) -> Tensor:
        """Return the targets to train on.

        Args:
            targets: class numbers of shape (N, …), or probabilities of shape (N, classes, …).
            classes: the number of outputs.
        """


class NoSmoothing(SmoothingTrick):
    """Targets stay unchanged."""

    neutral: ClassVar[bool] = True
    kind: Literal["none"] = "none"

    def smooth(self, targets: Tensor, classes: int) -> Tensor:
        del classes
        return targets


class LabelSmoothing(SmoothingTrick):
    """y ← (1 − ε)·y + ε/K for K classes (Szegedy et al., 2016).

    When it helps: where classes are hard to tell apart, or some labels are wrong. It costs no time.
    Outputs become less certain: do not read them as probabilities.
    """

    searched: ClassVar[bool] = False
    kind: Literal["label_smoothing"] = "label_smoothing"
    epsilon: Annotated[float, Float(0.02, 0.2)] = Field(default=0.1, gt=0, lt=1)

    def smooth(self, targets: Tensor, classes: int) -> Tensor:
        certain = probabilities(targets, classes)
        whole = certain.sum(1, keepdim=True)  # 0 for an ignored target
        return certain * (1 - self.epsilon) + whole * (self.epsilon / classes)


class MixingTrick(Trick):
    """How samples of a batch are mixed with others."""

    changes_batch: ClassVar[bool] = True
    needs_forward: ClassVar[bool] = True

    @abstractmethod
    def mix(self, inputs: Tensor, targets: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Return the inputs and targets to train on.

        Args:
            inputs: floating-point numbers of shape (N, …).
            targets: class numbers of shape (N,).
            classes: the number of outputs.
        """


class NoMixing(MixingTrick):
    """Samples stay unchanged."""

    neutral: ClassVar[bool] = True
    kind: Literal["none"] = "none"

    def mix(self, inputs: Tensor, targets: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        del classes
        return inputs, targets


class MixUp(MixingTrick):
    """x ← λ·x + (1 − λ)·x′, and y likewise, with one λ ~ Beta(α, α) per batch (Zhang et al., 2018).

    When it helps: with few samples for the size of the network, in long runs, also on tables. The
    training loss then says little, and short runs get worse.
    """

    searched: ClassVar[bool] = False
    kind: Literal["mixup"] = "mixup"
    alpha: Annotated[float, Float(0.1, 1.0, log=True)] = Field(default=0.2, gt=0)

    def mix(self, inputs: Tensor, targets: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        images = inputs.reshape(len(inputs), -1, 1, 1)  # torchvision's MixUp takes images only
        mixed, soft = _mixed(v2.MixUp(alpha=self.alpha), images, targets, classes)
        return mixed.view_as(inputs), soft


class CutMix(MixingTrick):
    """A rectangle of each image, and its share of y, come from another image (Yun et al., 2019).

    The rest of the image is a share λ ~ Beta(α, α), drawn once per batch.

    When it helps: for images in long runs, like mixup, and where positions matter. The rectangle may
    show nothing of the class that its share of the target names.
    """

    searched: ClassVar[bool] = False
    kind: Literal["cutmix"] = "cutmix"
    alpha: Annotated[float, Float(0.2, 1.0, log=True)] = Field(default=1.0, gt=0)

    def mix(self, inputs: Tensor, targets: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        check_images(self.kind, inputs)
        return _mixed(v2.CutMix(alpha=self.alpha), inputs, targets, classes)


def _mixed(
    transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    inputs: Tensor,
    targets: Tensor,
    classes: int,
) -> tuple[Tensor, Tensor]:
    if targets.is_floating_point() or targets.dim() > 1:
        raise InputError(
            f"mixing takes one class number for each sample (got {targets.dtype} of shape "
            f"{tuple(targets.shape)}): set mixing to 'none'"
        )
    return transform(inputs, probabilities(targets, classes))


Smoothing = NoSmoothing | LabelSmoothing
Mixing = NoMixing | MixUp | CutMix
