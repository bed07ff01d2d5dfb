"""Augmentation: what may happen to an image, and how often it happens."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from conftest import variant

from lightning_tricks import InputError


def pictures(count=32, channels=1, size=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)


def test_flip_crop_shifts_and_mirrors_each_image_on_its_own():
    images = pictures(64, 3)
    changed = variant("augmentation", "flip_crop", shift=2).apply(images)
    padded = F.pad(images, (2, 2, 2, 2))
    drawn = set()
    for before, after in zip(padded, changed, strict=True):
        found = []
        for down, right, flip in itertools.product(range(5), range(5), (False, True)):
            cut = before[:, down : down + 12, right : right + 12]
            if torch.equal(after, cut.flip(-1) if flip else cut):
                found.append((down, right, flip))
        assert len(found) == 1
        drawn |= set(found)
    assert len(drawn) > 30
    assert {flip for *_, flip in drawn} == {False, True}


def test_flip_crop_does_not_mirror_where_that_is_off():
    image = torch.zeros(200, 1, 4, 4)
    image[..., 0] = 1
    changed = variant("augmentation", "flip_crop", shift=1, flip=False).apply(image)
    assert not changed[..., 2:].any()


def test_erasing_takes_a_rectangle_from_a_share_of_the_images():
    images = pictures(4000)
    changed = variant("erasing", "erasing", p=0.4).apply(images)
    gone = (changed == 0)[:, 0]
    hit = gone.flatten(1).any(1)
    assert float(hit.float().mean()) == pytest.approx(0.4, abs=0.03)
    rows, columns = gone.any(2).sum(1), gone.any(1).sum(1)
    torch.testing.assert_close(gone.flatten(1).sum(1), rows * columns)  # a rectangle, nothing else
    shares = gone[hit].float().mean((1, 2))
    assert 0.15 < float(shares.mean()) < 0.2
    assert torch.equal(changed[~gone[:, None]], images[~gone[:, None]])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["trivial", "rand"])
def test_automatic_augmentation_changes_bytes_into_bytes(kind, channels):
    images = pictures(64, channels, 28)
    changed = variant("augmentation", kind).apply(images)
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    assert float((changed != images).flatten(1).any(1).float().mean()) > 0.3


@pytest.mark.parametrize("kind", ["trivial", "rand"])
def test_automatic_augmentation_needs_bytes(kind):
    with pytest.raises(InputError, match=r"changes images of bytes, torch.uint8 \(got torch.float32\)"):
        variant("augmentation", kind).apply(torch.rand(4, 3, 8, 8))


@pytest.mark.parametrize(
    ("stage", "kind"),
    [("augmentation", "flip_crop"), ("augmentation", "trivial"), ("erasing", "erasing")],
)
def test_what_is_no_image_is_an_error(stage, kind):
    with pytest.raises(InputError, match=r"changes images of shape \(N, channels, height, width\)"):
        variant(stage, kind).apply(torch.rand(4, 6))


@pytest.mark.parametrize("stage", ["augmentation", "erasing"])
def test_the_same_random_state_gives_the_same_images(stage):
    from lightning_tricks import Tricks
    from lightning_tricks.space.trick import stages

    for kind in stages(Tricks)[stage]:
        torch.manual_seed(5)
        first = variant(stage, kind).apply(pictures())
        torch.manual_seed(5)
        assert torch.equal(variant(stage, kind).apply(pictures()), first)


@pytest.mark.parametrize(("stage", "kind"), [("augmentation", "flip_crop"), ("erasing", "erasing")])
@pytest.mark.parametrize("colors", [1, 3])
def test_images_with_their_channels_last_are_refused(stage, kind, colors):
    images = pictures(8, colors, 16).permute(0, 2, 3, 1)
    with pytest.raises(InputError, match=r"shape \(N, channels, height, width\) \(got \(8, 16, 16"):
        variant(stage, kind).apply(images)
    with pytest.raises(InputError, match="cutmix"):
        variant("mixing", "cutmix").mix(images.float(), torch.arange(8) % 2, 2)
    variant(stage, kind).apply(pictures(8, colors, 3))
