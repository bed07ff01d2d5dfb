import numpy as np
import pytest
import torch
from conftest import fit, mlp, samples, small_data, variant
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from lightning_tricks import InMemoryData, InputError, Split, Tricks, TricksModule
from lightning_tricks.tricks.scaling import LIMIT

KINDS = ["unit", "signed", "standardize"]


def fitted(kind, inputs, batches=3):
    trick = variant("scaling", kind)
    layer = trick.build()
    trick.fit(layer, inputs.tensor_split(batches))
    return layer


@pytest.mark.parametrize(
    ("kind", "scaler"),
    [
        ("unit", MinMaxScaler()),
        ("signed", MinMaxScaler((-1, 1))),
        ("standardize", StandardScaler()),
    ],
)
def test_flat_inputs_are_scaled_like_scikit_learn(kind, scaler):
    inputs = torch.randn(200, 5) * torch.tensor([1.0, 100, 1e-3, 5, 1]) + torch.arange(5) * 1000
    expected = scaler.fit_transform(inputs.double().numpy())
    found = fitted(kind, inputs)(inputs)
    assert float(np.abs(found.numpy() - expected)[:, [0, 1, 3, 4]].max()) < 0.02
    assert found.std(0)[0] > 0.1


def test_images_are_standardized_per_channel():
    images = torch.randn(50, 3, 4, 4) * torch.tensor([1.0, 5, 9]).view(3, 1, 1) + 20
    scaled = fitted("standardize", images)(images)
    torch.testing.assert_close(scaled.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std((0, 2, 3)), torch.ones(3), atol=1e-2, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_scaled_alike(kind):
    images = torch.randint(0, 256, (20, 1, 4, 4), dtype=torch.uint8)
    layer = fitted(kind, images)
    torch.testing.assert_close(layer(images.float()), fitted(kind, images.float())(images.float()))


@pytest.mark.parametrize("kind", KINDS)
@given(value=st.floats(-1e6, 1e6, width=32), other=st.floats(-1e6, 1e6, width=32))
def test_a_constant_feature_does_not_blow_up(kind, value, other):
    inputs = torch.full((30, 2), float(value))
    inputs[:, 1] = torch.linspace(-1, 1, 30)
    layer = fitted(kind, inputs)
    assert layer(inputs).abs().max() <= 2
    assert layer(torch.full((1, 2), float(other))).abs().max() <= LIMIT


@pytest.mark.parametrize("kind", KINDS)
def test_a_nearly_constant_feature_does_not_blow_up(kind):
    noise = torch.tensor([[1e6], [1e6 + 0.0625]]).repeat(20, 1)
    spike = torch.zeros(1000, 1)
    spike[7] = 1.0  # one sample of a thousand
    assert fitted(kind, noise)(noise).abs().max() <= 1
    assert fitted(kind, spike)(torch.tensor([[16.0]])).abs() <= LIMIT


@given(
    values=hnp.arrays(np.float32, (12, 3), elements=st.floats(-1e4, 1e4, width=32)),
    batches=st.integers(1, 6),
)
def test_statistics_do_not_depend_on_the_batches(values, batches):
    inputs = torch.from_numpy(values)
    one, many = fitted("standardize", inputs, 1), fitted("standardize", inputs, batches)
    torch.testing.assert_close(one.offset, many.offset, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.gain, many.gain, rtol=1e-3, atol=1e-6)


def test_nan_in_the_training_split_is_an_error():
    with pytest.raises(InputError, match="must be finite"):
        fitted("unit", torch.tensor([[1.0], [float("nan")]]), 1)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_training_split_is_looked_at_and_raw_inputs_are_answered(kind, tmp_path):
    train, other = samples(24, 6), samples(12, 6, seed=1)
    data = InMemoryData(train, Split(other.inputs * 1000, other.targets), batch_size=8)
    module = fit(Tricks(scaling={"kind": kind}), mlp(), data)
    expected = fitted(kind, train.inputs)
    torch.testing.assert_close(module.scaling.offset, expected.offset)
    torch.testing.assert_close(module.scaling.gain, expected.gain)

    fresh = TricksModule(mlp(), module.tricks)
    fresh.load_state_dict(module.state_dict())
    module.eval(), fresh.eval()
    torch.testing.assert_close(fresh(train.inputs), module(train.inputs))
    torch.testing.assert_close(module.network()(train.inputs), module(train.inputs))


def test_without_scaling_nothing_is_kept():
    module = fit(Tricks(scaling={"kind": "none"}), mlp(), small_data())
    assert module.scaling is None
