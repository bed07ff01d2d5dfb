"""Batch size as a trick: for every kind of data, at the requested rate, in parts if needed."""

import copy
from collections import Counter

import pytest
import pytorch_lightning as pl
import torch
from conftest import mlp, optimize, samples, small_data
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, TensorDataset

from lightning_tricks import InputError, ModuleTricks, Space, Task, Tricks, create_study, train
from lightning_tricks.data.batches import batch_size_of, resized, with_batch_size
from lightning_tricks.data.loaders import LoaderData
from lightning_tricks.fusion.shape import shape_of
from lightning_tricks.task.checks import check
from lightning_tricks.tricks.batch import SizedBatches

SIZED = Space(Tricks).narrow({"batch": ["own", "size"]})


def sized(size, **fields):
    return Tricks.plain().model_copy(update={"batch": SizedBatches(size=size), **fields})


class Counting(nn.Module):
    """A network that notes the size of each training batch."""

    def __init__(self, most=10**9):
        super().__init__()
        self.layers, self.most = mlp(), most

    def forward(self, inputs):
        if self.training:
            SEEN[len(inputs)] += 1
            if len(inputs) > self.most:
                raise torch.OutOfMemoryError("as a device says it")
        return self.layers(inputs)


SEEN: Counter = Counter()


@pytest.fixture(autouse=True)
def nothing_was_seen():
    SEEN.clear()


def task(data=None, most=10**9, **options):
    return Task("sized", data or small_data(), lambda tricks: Counting(most), epochs=1, **options)


class Own(pl.LightningDataModule):
    """A data module as people write it."""

    def __init__(self, batch_size=8, acts=True, saved=False):
        super().__init__()
        self.acts = acts
        if saved:
            self.save_hyperparameters()
        else:
            self.batch_size = batch_size
        self.split = TensorDataset(*samples(24, 6))

    def loader(self, shuffle):
        size = self.batch_size if hasattr(self, "batch_size") else self.hparams.batch_size
        return DataLoader(self.split, size if self.acts else 8, shuffle=shuffle)

    def train_dataloader(self):
        return self.loader(True)

    def val_dataloader(self):
        return self.loader(False)


def loaders(**options):
    held = TensorDataset(*samples(24, 6))
    return DataLoader(held, 8, shuffle=True, **options), DataLoader(held, 8)


DATA = {"in memory": small_data, "loaders": loaders, "module": Own, "saved": lambda: Own(saved=True)}


@pytest.mark.parametrize("kind", DATA)
def test_a_step_is_of_so_many_samples_and_an_epoch_stays_an_epoch(kind):
    data = DATA[kind]()
    result = train(task(data), sized(12), 0)
    assert result.state == "complete", result.traceback
    assert SEEN[12] == 2
    again = task(data)
    again.watched(Tricks.plain())  # passes a batch, too
    SEEN.clear()
    assert train(again, Tricks.plain(), 0).state == "complete"
    assert SEEN[8] == 3  # the data are unchanged


def test_a_loader_is_built_alike():
    def collate(batch):
        return torch.utils.data.default_collate(batch)

    def init(number):
        del number

    generator = torch.Generator().manual_seed(3)
    given = {
        "num_workers": 2,
        "collate_fn": collate,
        "drop_last": True,
        "timeout": 5,
        "generator": generator,
    }
    given |= {"worker_init_fn": init, "persistent_workers": True, "prefetch_factor": 3}
    loader = loaders(**given)[0]
    found = resized(loader, 5)
    assert found.batch_size == 5
    assert found.sampler is loader.sampler
    assert found.dataset is loader.dataset
    for name, value in given.items():
        assert getattr(found, name) == value
    assert [len(batch) for batch in resized(DataLoader(Stream(), 4), 6)] == [6, 4]


class Stream(IterableDataset):
    """Samples without a known length."""

    def __iter__(self):
        return iter(range(10))


class Stranger(DataLoader):
    """A loader class of another package."""


UNFIT = {
    "a sampler of batches": lambda held: DataLoader(
        held, batch_sampler=BatchSampler(RandomSampler(held), 8, True)
    ),
    "another class": lambda held: Stranger(held, 8),
    "whole samples": lambda held: DataLoader(held, batch_size=None),
}


@pytest.mark.parametrize("kind", ["another class", "whole samples"])
def test_what_cannot_be_rebuilt_leaves_the_search_with_a_line(kind):
    held = TensorDataset(*samples(24, 6))
    loader = UNFIT[kind](held)
    with pytest.raises(InputError, match="the batch size cannot be changed"):
        resized(loader, 4)
    if kind == "another class":
        checked = check(task((loader, DataLoader(held, 8))), SIZED)
        assert checked.space.domains["batch"].extremes() == ("own",)
        assert any(
            "left out of the search: batch size (the batch size cannot" in n for n in checked.notes
        )


def test_a_batch_size_that_changes_nothing_leaves_the_search_or_is_refused():
    checked = check(task(Own(acts=False)), SIZED)
    assert any("batch_size of Own does not change" in note for note in checked.notes)
    with pytest.raises(InputError, match="batch_size of Own does not change"):
        check(task(Own(acts=False)), Space(Tricks).pin({"batch": "size"}))


def test_sizes_are_searched_around_the_datas_own():
    assert batch_size_of(LoaderData(*loaders())) == 8
    domains = check(task(), SIZED).space.domains
    assert domains["batch.size.size"].extremes() == (8, 16)  # no more than the 24 samples
    domains = check(task(small_data(batch_size=64)), SIZED).space.domains
    assert domains["batch.size.size"].extremes() == (16,)
    own = SIZED.narrow({"batch.size.size": [5, 6]})
    assert check(task(), own).space.domains["batch.size.size"].extremes() == (5, 6)


def test_it_is_off_unless_it_is_asked_for():
    assert "batch" not in Space(Tricks).searched()
    assert Tricks().batch.neutral
    assert ModuleTricks.yours().batch.neutral


@pytest.mark.parametrize(("rule", "factor"), [("none", 1), ("linear", 2), ("square_root", 2**0.5)])
def test_the_rate_goes_with_the_size_only_if_that_was_asked_for(rule, factor):
    recipe = sized(16, batch=SizedBatches(size=16, rule=rule))
    module = task().of_recipe(recipe).module(recipe)
    assert module.tricks.optimizer.lr == pytest.approx(recipe.optimizer.lr * factor)


def test_it_is_of_the_shape_of_a_group_and_of_the_identity_of_a_trial():
    assert shape_of(sized(8)) != shape_of(sized(16))
    assert shape_of(sized(8)) == shape_of(sized(8))


def test_in_a_group_it_is_as_alone():
    from lightning_tricks.training.runner import Runner
    from lightning_tricks.trial.job import Job

    recipe, results = sized(12), {}
    plain = Task("sized", small_data(), lambda tricks: mlp(), epochs=2)
    runner = Runner(plain)
    jobs = [Job(number, recipe, number) for number in range(2)]
    runner.train(jobs, lambda *unused: False, lambda job, got: results.update({job.number: got}))
    assert not runner.refusals.of(recipe)
    for number, result in results.items():
        assert result.score == pytest.approx(train(plain, recipe, number).score)


def test_what_memory_does_not_hold_is_taken_in_parts_with_the_same_steps():
    whole = train(task(), sized(16), 0)
    SEEN.clear()
    parts = train(task(most=4), sized(16), 0)
    assert parts.state == "complete"
    assert "batches of 16 do not fit in memory: the gradients of 4 parts are added up" in parts.warning
    assert SEEN[4] >= 6
    for name, value in whole.weights.items():
        if name.startswith("backbone.layers.0"):  # the last step has fewer samples
            torch.testing.assert_close(parts.weights[name], value, atol=0.05, rtol=0.5)
    assert train(task(most=0), sized(4), 0).state == "failed"


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.usefixtures("with_store")
def test_a_study_searches_it():
    study = create_study("sized", storage=None)
    optimize(study, task(), n_trials=10, space=SIZED, progress=False)
    assert {t.params.get("batch.size.size") for t in study.trials} & {8, 16}
    assert set(SEEN) >= {8, 16}


def test_data_are_not_changed_by_what_is_made_of_them():
    data = Own(saved=True)
    before = copy.copy(dict(data.hparams))
    assert with_batch_size(data, 3).hparams["batch_size"] == 3
    assert dict(data.hparams) == before
