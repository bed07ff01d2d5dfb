"""Image augmentation during training: on the device, batch by batch.

It acts before scaling, on images of shape (N, channels, height, width) with the values of the data.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torchvision.transforms import v2

from lightning_tricks.errors import InputError
from lightning_tricks.space.domains import Float, Int
from lightning_tricks.space.trick import Trick

COLORS = (1, 3, 4)
"""Number of channels of images: gray, colors, and colors with transparency."""
GROUPS = 16
"""Number of groups in a batch, for transforms that draw only once per call."""


class AugmentationTrick(Trick):
    """How the images of a batch are changed."""

    changes_batch: ClassVar[bool] = True
    needs_forward: ClassVar[bool] = True

    kind: str

    def apply(self, images: Tensor) -> Tensor:
        """Return changed images, of the same shape and type.

        Raises:
            InputError: if the inputs are not images, or have a type that the trick cannot change.
        """
        check_images(self.kind, images)
        return self.change(images)

    @abstractmethod
    def change(self, images: Tensor) -> Tensor:
        """Return changed images of shape (N, channels, height, width)."""


class _Off(AugmentationTrick):
    neutral: ClassVar[bool] = True

    def apply(self, images: Tensor) -> Tensor:
        return images

    def change(self, images: Tensor) -> Tensor:
        return images


class NoAugmentation(_Off):
    """Images stay unchanged."""

    kind: Literal["none"] = "none"


class FlipCrop(AugmentationTrick):
    """Shifts each image by up to `shift` pixels, and mirrors it with probability 1/2.

    This is the usual padding, random crop and horizontal flip (He et al., 2016), drawn for each
    image. Set `flip` to False where left and right matter, as in digits.

    When it helps: for natural images, in runs of many epochs. In short runs it slows learning down.
    """

    searched: ClassVar[bool] = False
    kind: Literal["flip_crop"] = "flip_crop"
    shift: Annotated[int, Int(1, 6)] = Field(default=4, ge=1, le=1024)
    flip: bool = True

    def change(self, images: Tensor) -> Tensor:
        count, channels, height, width = images.shape
        device, span = images.device, 2 * self.shift + 1
        down, right = torch.randint(span, (2, count, 1), device=device)
        rows = down + torch.arange(height, device=device)
        columns = right + torch.arange(width, device=device)
        if self.flip:
            mirrored = torch.rand(count, 1, device=device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        padded = F.pad(images, (self.shift,) * 4)
        across = columns[:, None, None, :].expand(count, channels, padded.shape[2], width)
        along = rows[:, None, :, None].expand(count, channels, height, width)
        return padded.gather(3, across).gather(2, along)


class _InGroups(AugmentationTrick):
    """A torchvision transform, which draws only once per call.

    The batch is split at random into 16 groups. Each group gets its own draw.
    """

    def change(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8:
            raise InputError(f"{self.kind!r} changes images of bytes, torch.uint8 (got {images.dtype})")
        transform = self.transform()
        changed = torch.empty_like(images)
        order = torch.randperm(len(images), device=images.device)
        for group in order.chunk(GROUPS):
            changed[group] = transform(images[group])
        return changed

    @abstractmethod
    def transform(self) -> Callable[[Any], Any]:
        """Return the transform."""


class TrivialAugment(_InGroups):
    """One of 14 changes of color or shape, of a random strength (Müller and Hutter, 2021).

    Uses torchvision's `TrivialAugmentWide`. Each sixteenth of the batch shares one draw.

    When it helps: for natural images, in runs long enough to overfit. It has nothing to tune. It
    costs time in every batch, takes bytes only, and makes short runs worse.
    """

    searched: ClassVar[bool] = False
    kind: Literal["trivial"] = "trivial"

    def transform(self) -> Callable[[Any], Any]:
        transform: Callable[[Any], Any] = v2.TrivialAugmentWide()
        return transform


class RandAugment(_InGroups):
    """`count` random changes of color or shape, all of one strength (Cubuk et al., 2020).

    Uses torchvision's `RandAugment`, whose strengths go from 0 to 30. Each sixteenth of the batch
    shares one draw.

    When it helps: where TrivialAugment helps, if you want to set the strength of the changes. Try
    TrivialAugment first.
    """

    searched: ClassVar[bool] = False
    kind: Literal["rand"] = "rand"
    count: Annotated[int, Int(1, 3)] = Field(default=2, ge=1, le=100)
    strength: Annotated[int, Int(3, 15)] = Field(default=9, ge=0, le=30)

    def transform(self) -> Callable[[Any], Any]:
        transform: Callable[[Any], Any] = v2.RandAugment(self.count, self.strength)
        return transform


class NoErasing(_Off):
    """Images stay unchanged."""

    kind: Literal["none"] = "none"


class RandomErasing(AugmentationTrick):
    """Sets a rectangle of 2 to 33% of an image to 0, with probability p (Zhong et al., 2020).

    Its sides have a ratio of 0.3 to 3.3. Each image gets its own draw.

    When it helps: for images in long runs, where objects may be partly hidden. It can erase small
    objects completely.
    """

    searched: ClassVar[bool] = False
    kind: Literal["erasing"] = "erasing"
    p: Annotated[float, Float(0.05, 0.5)] = Field(default=0.25, gt=0, le=1)

    def change(self, images: Tensor) -> Tensor:
        count, _, height, width = images.shape
        device = images.device
        area = torch.empty(count, device=device).uniform_(0.02, 0.33) * height * width
        ratio = torch.empty(count, device=device).uniform_(0.3, 3.3)
        chosen = torch.rand(count, device=device) < self.p
        down = _inside(height, (area * ratio).sqrt())
        across = _inside(width, (area / ratio).sqrt())
        erased = chosen[:, None, None] & down[:, :, None] & across[:, None, :]
        return images.masked_fill(erased[:, None], 0)


def check_images(kind: str, images: Tensor) -> None:
    """Check that inputs are images of shape (N, channels, height, width).

    Raises:
        InputError: if they are not, or look like images with the channels last.
    """
    shape = tuple(images.shape)
    last = len(shape) == 4 and shape[3] in COLORS and not {shape[1], shape[2]} & set(COLORS)
    if len(shape) != 4 or last:
        raise InputError(f"{kind!r} changes images of shape (N, channels, height, width) (got {shape})")


def _inside(side: int, lengths: Tensor) -> Tensor:
    """Place intervals of given lengths at random on a side; return the pixels they cover, (N, side)."""
    lengths = lengths.round().clamp(1, side)
    start = (torch.rand_like(lengths) * (side - lengths + 1)).floor()
    pixels = torch.arange(side, device=lengths.device)
    return (pixels >= start[:, None]) & (pixels < (start + lengths)[:, None])


Augmentation = NoAugmentation | FlipCrop | TrivialAugment | RandAugment
Erasing = NoErasing | RandomErasing
