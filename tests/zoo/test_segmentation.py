"""Can networks of segmentation_models_pytorch, with masks as targets, be searched and loaded?"""

import pytest
import pytorch_lightning as pl
import torch
from packages import check_study
from torch.utils.data import DataLoader, TensorDataset

from lightning_tricks import ModuleTricks, Task

smp = pytest.importorskip("segmentation_models_pytorch")

pytestmark = pytest.mark.zoo

SIZE = 32


def pictures(count, seed):
    """Return noise with a bright square, and the mask of the square."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, SIZE, SIZE, generator=generator)
    masks = torch.zeros(count, 1, SIZE, SIZE)
    corners = torch.randint(SIZE // 2, (count, 2), generator=generator).tolist()
    for mask, (top, left) in zip(masks, corners, strict=True):
        mask[:, top : top + SIZE // 2, left : left + SIZE // 2] = 1
    return TensorDataset(images + masks, masks)


class Segmenter(pl.LightningModule):
    """Segments one kind of object, with a score from the counts of a whole epoch."""

    def __init__(self, make):
        super().__init__()
        self.model = make()
        self.loss = smp.losses.DiceLoss(smp.losses.BINARY_MODE, from_logits=True)
        self.outputs = []

    def forward(self, images):
        return self.model(images)

    def training_step(self, batch, batch_idx):
        images, masks = batch
        return self.loss(self(images), masks)

    def validation_step(self, batch, batch_idx):
        self.count(batch, "val")

    def test_step(self, batch, batch_idx):
        self.count(batch, "test")

    def on_validation_epoch_end(self):
        self.score("val")

    def on_test_epoch_end(self):
        self.score("test")

    def count(self, batch, split):
        images, masks = batch
        logits = self(images)
        self.log(f"{split}_loss", self.loss(logits, masks))
        found = (logits.sigmoid() > 0.5).long()
        self.outputs.append(smp.metrics.get_stats(found, masks.long(), mode="binary"))

    def score(self, split):
        counts = [torch.cat(parts) for parts in zip(*self.outputs, strict=True)]
        self.log(f"{split}_iou", smp.metrics.iou_score(*counts, reduction="micro"))
        self.outputs.clear()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-5)


def unet():
    """Return a U-Net with an encoder that has unused deeper layers."""
    return smp.Unet(
        "tu-mobilenetv3_small_050",
        encoder_weights=None,
        encoder_depth=3,
        decoder_channels=(16, 8, 8),
        classes=1,
    )


def fpn():
    return smp.FPN(
        "tu-test_resnet",
        encoder_weights=None,
        decoder_pyramid_channels=16,
        decoder_segmentation_channels=32,
        classes=1,
    )


@pytest.mark.parametrize("network", [unet, fpn])
def test_masks_are_learned(network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make():
        return Segmenter(network)

    task = Task(
        network.__name__,
        (
            DataLoader(pictures(16, 0), 4, shuffle=True),
            DataLoader(pictures(8, 1), 4),
            DataLoader(pictures(8, 2), 4),
        ),
        backbone=lambda tricks: make(),
        tricks=ModuleTricks,
        epochs=1,
        monitor="val_iou",
        mode="max",
        validation_loss="val_loss",
    )
    images = pictures(2, 3).tensors[0]
    check_study(task, make, lambda module: module(images), tmp_path)
