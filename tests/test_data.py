import numpy as np
import pandas as pd
import pytest
import torch
from conftest import samples, small_data
from hypothesis import given
from hypothesis import strategies as st

from lightning_tricks import InMemoryData, InputError, Split
from lightning_tricks.data.in_memory import _fits
from lightning_tricks.data.tensor_loader import TensorLoader


def numbered(count):
    return Split(torch.arange(count).float()[:, None], torch.arange(count))


@given(count=st.integers(1, 60), size=st.integers(1, 20), seed=st.integers(0, 99))
def test_a_shuffled_epoch_holds_each_sample_once_and_no_batch_of_one(count, size, seed):
    loader = TensorLoader(numbered(count), size, lambda: seed)
    batches = [targets.tolist() for _, targets in loader]
    assert len(batches) == len(loader)
    left_out = count - sum(map(len, batches))
    assert left_out == (1 if size > 1 and count % size == 1 and count > 1 else 0)
    flat = sum(batches, [])
    assert len(set(flat)) == len(flat)


@given(count=st.integers(1, 60), size=st.integers(1, 20))
def test_without_shuffling_every_sample_comes_in_order(count, size):
    loader = TensorLoader(numbered(count), size)
    assert sum((targets.tolist() for _, targets in loader), []) == list(range(count))
    assert len(list(loader)) == len(loader)


def test_the_order_follows_from_the_seed():
    def order(seed):
        return torch.cat([y for _, y in TensorLoader(numbered(50), 7, lambda: seed)]).tolist()

    assert order(1) == order(1) != order(2)


def test_splits_are_disjoint_whole_and_stratified():
    inputs, targets = np.arange(100.0)[:, None], np.arange(100) % 4
    data = InMemoryData.from_arrays(inputs, targets)
    parts = [data.splits[name].inputs.flatten().tolist() for name in ("train", "validation", "test")]
    assert sorted(sum(parts, [])) == list(range(100))
    assert [len(part) for part in parts] == [60, 20, 20]
    assert torch.bincount(data.splits["test"].targets).tolist() == [5, 5, 5, 5]
    assert data.outputs == 4
    assert data.sample_shape == (1,)


def bad(**changes):
    given = {"train": samples(12, 4), "validation": samples(6, 4), **changes}
    return InMemoryData(**given)


BAD = {
    "one class": (lambda: bad(train=samples(6, 4, classes=1)), "at least two classes"),
    "nan": (
        lambda: InMemoryData.from_arrays([[1.0], [float("nan")]] * 9, [0, 1] * 9),
        r"must be finite \(got 9 NaN.*the first at \[1, 0\]\)",
    ),
    "nan in a table": (
        lambda: InMemoryData.from_arrays(
            pd.DataFrame({"age": [1.0] * 9, "size": [2.0] * 8 + [None]}), [0, 1, 0] * 3
        ),
        r"the first at \[8, 1\], in column 'size'\)",
    ),
    "empty": (lambda: InMemoryData.from_arrays(np.zeros((0, 2)), []), "of one length, at least 1"),
    "lengths": (lambda: InMemoryData.from_arrays(np.zeros((3, 2)), [0, 1]), "of one length"),
    "prices": (
        lambda: InMemoryData.from_arrays(np.zeros((40, 2)), np.arange(40) * 1000),
        "40 different values in 40 samples.*set regression=True",
    ),
    "prices in cents": (
        lambda: InMemoryData.from_arrays(np.zeros((40, 2)), np.arange(40) / 100),
        "for numbers to predict, set regression=True",
    ),
    "few": (lambda: InMemoryData.from_arrays(np.zeros((3, 2)), [0, 1, 1]), "cannot be split"),
    "negative": (lambda: InMemoryData.from_arrays([[1.0]] * 20, [-1, 1] * 10), "class numbers"),
    "strings": (lambda: InMemoryData.from_arrays([[1.0]] * 9, ["a", "b", "c"] * 3), "must be numbers"),
    "ragged": (lambda: InMemoryData.from_arrays([[1.0], [1.0, 2.0]], [0, 1]), "must be numbers"),
    "scalar": (lambda: InMemoryData.from_arrays(3, 3), "inputs must be real numbers of shape"),
    "complex": (lambda: InMemoryData.from_arrays([[1j]] * 20, [0, 1] * 10), "real numbers"),
    "shapes": (lambda: bad(test=samples(6, 5)), "of one shape"),
    "batch": (lambda: bad(batch_size=0), "batch_size must be a whole number"),
    "floats": (lambda: bad(validation=Split(torch.zeros(3, 4), torch.full((3,), 0.5))), "class numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_one_clear_line(case):
    make, message = BAD[case]
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_column_whose_differences_are_lost_in_32_bits_is_named():
    generator = np.random.default_rng(0)
    seconds = 1.7e9 + generator.uniform(0, 100, 60)
    table = pd.DataFrame({"size": generator.normal(size=60), "time": seconds})
    with pytest.warns(UserWarning, match="the differences in column 'time' are lost"):
        InMemoryData.from_arrays(table, [0, 1] * 30)
    table["time"] -= table["time"].mean()
    InMemoryData.from_arrays(table, [0, 1] * 30)


def test_no_test_split_is_an_error_when_it_is_asked_for():
    with pytest.raises(InputError, match="no test split"):
        bad().test_dataloader()


def test_data_move_to_a_gpu_only_where_they_fit(monkeypatch):
    """Needs no GPU: only the free memory that it reports counts."""
    split = samples(100, 6)
    needed = split.inputs.nbytes + split.targets.nbytes
    gpu = torch.device("cuda", 0)
    for free, fits in ((2 * needed + 1, True), (2 * needed, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10 * free))
        assert _fits([split], gpu) is fits
    assert _fits([split], torch.device("cpu"))


def test_evaluation_batches_of_images_are_smaller():
    flat, images = small_data(), InMemoryData(*[samples(2000, 3, 32, 32)] * 2)
    assert next(iter(flat.val_dataloader()))[0].shape[0] == 12
    sizes = {len(targets) for _, targets in images.val_dataloader()}
    assert max(sizes) <= 2**19 // (3 * 32 * 32)
    assert sum(len(targets) for _, targets in images.val_dataloader()) == 2000


def test_tables_of_several_types_are_numbers_and_words_are_told_what_to_become():
    import pandas as pd

    table = pd.DataFrame({"size": [1.0, 2.5] * 10, "colour": ["red", "blue"] * 10})
    data = InMemoryData.from_arrays(pd.get_dummies(table), [0, 1] * 10)
    assert data.sample_shape == (3,)
    with pytest.raises(InputError, match=r"inputs must be numbers.*pandas.get_dummies"):
        InMemoryData.from_arrays(table, [0, 1] * 10)
    with pytest.raises(InputError, match=r"targets must be numbers.*pandas.factorize"):
        InMemoryData.from_arrays(pd.get_dummies(table), table["colour"])


@given(st.integers(40, 400), st.sampled_from([0.1, 0.2, 0.4]), st.integers(1, 10**6), st.booleans())
def test_splits_of_one_half_never_validate_samples_of_the_other(count, share, number, regression):
    """This holds for all sizes; the search validates in the first half."""
    targets = torch.arange(count) % 3 if not regression else torch.randn(count)
    inputs = torch.arange(count, dtype=torch.float32)[:, None]
    data = InMemoryData.from_arrays(inputs, targets, validation=share, regression=regression)
    trained, validated = (len(data.splits[name].targets) for name in ("train", "validation"))
    stands = set(range(trained, trained + validated))
    even, odd = data.split_anew(2 * number), data.split_anew(2 * number + 1)
    chooses = set(data.split_anew(2 * number + 2).validation_samples.tolist())
    for split, size in ((even, validated), (odd, min(validated, trained))):
        own = split.splits
        assert len(own["train"].targets) + len(own["validation"].targets) == trained + validated
        assert len(own["validation"].targets) == size
        both = torch.cat([own["train"].inputs, own["validation"].inputs])
        assert len(both.unique()) == trained + validated  # each sample once
        assert torch.equal(own["test"].inputs, data.splits["test"].inputs)
    other = set(odd.validation_samples.tolist())
    assert not other & (stands | chooses | set(even.validation_samples.tolist()))
    again = data.split_anew(2 * number + 1)
    assert torch.equal(again.validation_samples, odd.validation_samples)
    pool = torch.cat([data.splits[name].inputs for name in ("train", "validation")])
    assert torch.equal(pool[odd.validation_samples], odd.splits["validation"].inputs)
