"""DataLoaders as people have them: with persistent workers, iterated by training only."""

import pytest
import pytorch_lightning as pl
import torch
from conftest import mlp, optimize, samples, trainer
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from lightning_tricks import InputError, Task, Tricks, TricksModule, create_study, train
from lightning_tricks.data.loaders import LoaderData, fresh
from lightning_tricks.trial import callback
from lightning_tricks.trial.result import Interrupted

pytestmark = pytest.mark.usefixtures("with_store")


def loader(count=32, workers=1, shuffle=True):
    return DataLoader(
        TensorDataset(*samples(count, 6)),
        batch_size=8,
        shuffle=shuffle,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


class Trained(pl.Callback):
    """Note the inputs of each training batch."""

    def __init__(self):
        self.inputs = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.inputs.append(batch[0])


@pytest.mark.parametrize(
    ("stages", "options"),
    [
        ({}, {}),
        ({"averaging": {"kind": "ema"}}, {"val_check_interval": 0.5}),
        ({"optimizer": {"kind": "schedule_free"}}, {"val_check_interval": 0.5}),
    ],
    ids=["defaults", "ema", "schedule_free"],
)
def test_every_batch_of_a_loader_with_persistent_workers_is_trained(stages, options):
    trained = Trained()
    module = TricksModule(mlp(), Tricks(**stages))
    trainer(2, callbacks=[trained], **options).fit(module, loader(), loader(shuffle=False))
    expected = samples(32, 6).inputs.sort(0).values
    assert len(trained.inputs) == 8
    for epoch in (trained.inputs[:4], trained.inputs[4:]):
        torch.testing.assert_close(torch.cat(epoch).sort(0).values, expected)


def test_scaling_sees_what_is_trained_on_and_no_more():
    module = TricksModule(mlp(), Tricks(scaling={"kind": "standardize"}))
    trainer(1, limit_train_batches=2).fit(module, loader(shuffle=False), loader())
    torch.testing.assert_close(module.scaling.offset, samples(32, 6).inputs[:16].mean(0))


def test_a_stream_without_length_is_walked_to_its_end():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(zip(*samples(32, 6), strict=True))

    module = TricksModule(mlp(), Tricks.plain().model_copy(update={"scaling": Tricks().scaling}))
    trained = Trained()
    stream = DataLoader(Stream(), batch_size=8)
    trainer(2, callbacks=[trained], max_steps=8).fit(module, stream, loader())
    assert len(trained.inputs) == 8
    torch.testing.assert_close(module.scaling.offset, samples(32, 6).inputs.mean(0))


def test_a_fresh_loader_has_an_iterator_of_its_own():
    used = loader()
    walk = iter(used)
    next(walk)
    assert len(list(fresh(used))) == 4
    assert len(list(walk)) == 3


@pytest.mark.usefixtures("without_mlflow")
def test_a_study_takes_loaders_for_data():
    data = (loader(workers=0), loader(workers=0, shuffle=False), loader(workers=0, shuffle=False))
    task = Task("loaders", data, lambda tricks: mlp(), epochs=2)
    assert isinstance(task.data, LoaderData)
    assert task.samples() == 32
    study = create_study("loaders", storage=None, epochs=2)
    optimize(study, task, n_trials=2, workers="inline", progress=False)
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 2
    assert "test/accuracy" in study.user_attrs["tricks:tests"]["0"]


def test_loaders_travel_to_workers_while_they_are_in_use():
    import cloudpickle

    data = LoaderData(loader(), loader())
    module = TricksModule(mlp(), Tricks())
    trainer(1).fit(module, datamodule=data)
    again = cloudpickle.loads(cloudpickle.dumps(LoaderData(**data.loaders)))
    assert len(list(again.train_dataloader())) == 4


def test_what_can_be_walked_once_is_no_loader():
    with pytest.raises(InputError, match=r"iterable again each epoch.*got list_iterator"):
        Task("once", (iter([1]), loader()), lambda tricks: mlp())
    with pytest.raises(InputError, match=r"two or three loaders.*got 1"):
        Task("one", (loader(),), lambda tricks: mlp())


@pytest.mark.parametrize("sampler", [None, WeightedRandomSampler, SubsetRandomSampler])
def test_the_order_of_samples_follows_from_the_seed_if_a_loader_has_its_own_generator(sampler):
    data, generator = TensorDataset(*samples(32, 6)), torch.Generator().manual_seed(0)
    if sampler is WeightedRandomSampler:
        order = {"sampler": sampler([1.0, 2.0] * 16, 32, generator=generator)}
    elif sampler is SubsetRandomSampler:
        order = {"sampler": sampler(range(24), generator=generator)}
    else:
        order = {"shuffle": True, "generator": generator}
    loaders = DataLoader(data, 8, **order), DataLoader(data, 32)
    task = Task("t", loaders, lambda tricks: mlp(), epochs=2, monitor="val/loss")
    scores = [train(task, Tricks(), 0).score for _ in range(2)]
    assert scores[0] == scores[1]
    assert train(task, Tricks(), 1).score != scores[0]
    assert loaders[0].generator is order.get("generator")  # the user's own stays as it is


class OwnOrder(pl.LightningDataModule):
    """A data module whose loaders share one generator for all trials."""

    generator = torch.Generator()

    def train_dataloader(self):
        return DataLoader(TensorDataset(*samples(32, 6)), 8, shuffle=True, generator=self.generator)

    def val_dataloader(self):
        return DataLoader(TensorDataset(*samples(32, 6)), 32)


def test_the_order_of_samples_follows_from_the_seed_in_a_data_module_with_a_generator(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(callback, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(callback, "WRITING_SHARE", 1e9)
    task = Task("t", OwnOrder(), lambda tricks: mlp(), epochs=3, monitor="val/loss")
    whole = train(task, Tricks(), 0)
    again = train(task, Tricks(), 0)
    assert again.score == whole.score != train(task, Tricks(), 1).score
    place, asked = tmp_path / "trial.ckpt", iter([False] * 14 + [True])
    with pytest.raises(Interrupted):
        train(task, Tricks(), 0, interrupted=lambda: next(asked), checkpoint=place)
    assert place.exists()
    assert train(task, Tricks(), 0, checkpoint=place).score == whole.score
