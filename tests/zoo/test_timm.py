"""Can timm's small test backbones be searched and loaded?"""

import pytest
import torch
from packages import check_study

from lightning_tricks import ImageTricks, InMemoryData, Split, Task

timm = pytest.importorskip("timm")

pytestmark = pytest.mark.zoo

NETWORKS = [
    ("test_resnet", {}, torch.uint8),
    ("test_vit", {"img_size": 32}, torch.float32),
    ("test_efficientnet", {}, torch.uint8),
    ("test_convnext", {}, torch.float32),
    ("test_byobnet", {}, torch.uint8),
    ("test_mambaout", {}, torch.float32),
]


def images(count, seed, dtype):
    """Return images of two classes, dark and bright."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % 2
    pixels = torch.randint(128, (count, 3, 32, 32), generator=generator)
    pixels = pixels + 120 * targets[:, None, None, None]
    inputs = pixels.to(torch.uint8) if dtype == torch.uint8 else pixels.to(dtype) / 255
    return Split(inputs, targets)


@pytest.mark.parametrize(("name", "options", "dtype"), NETWORKS, ids=[name for name, *_ in NETWORKS])
def test_a_backbone_is_searched_and_brought_back(name, options, dtype, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make():
        return timm.create_model(name, num_classes=2, **options)

    splits = [images(count, seed, dtype) for seed, count in enumerate((24, 12, 12))]
    task = Task(
        name,
        InMemoryData(*splits, batch_size=8),
        backbone=lambda tricks: make(),
        tricks=ImageTricks,
        epochs=1,
    )
    check_study(task, make, lambda module: module(splits[1].inputs), tmp_path)
