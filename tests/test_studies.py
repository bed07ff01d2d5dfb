"""The study scripts as a user runs them, and the files that they read."""

import gzip
import pickle
import re
import subprocess
import sys
from pathlib import Path

import image_data
import numpy as np
import pytest
import torch

from lightning_tricks import InputError

pytestmark = pytest.mark.slow

STUDIES = Path(__file__).parents[1] / "studies"

DEBIAN = pytest.mark.skipif(
    not image_data.DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)
SMALL = ("--n-trials", "2", "--epochs", "1", "--repeats", "1", "--workers", "inline", "--finalists", "0")


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, str(STUDIES / script), *arguments], capture_output=True, text=True, check=False
    )


def idx(array):
    """Return an array of bytes in the format of MNIST's files."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()


def write_fashion(folder, count=120, packed=False):
    random = np.random.default_rng(0)
    for name, size in (("train", count), ("t10k", 20)):
        pictures = random.integers(0, 256, (size, 28, 28)).astype(np.uint8)
        labels = (np.arange(size) % 10).astype(np.uint8)
        for kind, array in (
            (f"{name}-images-idx3-ubyte", pictures),
            (f"{name}-labels-idx1-ubyte", labels),
        ):
            path = folder / (f"{kind}.gz" if packed else kind)
            path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return pictures, labels


def write_cifar(folder, count=20):
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        pictures = random.integers(0, 256, (count, 3072)).astype(np.uint8)
        content = {b"data": pictures, b"labels": [n % 10 for n in range(count)]}
        (folder / name).write_bytes(pickle.dumps(content))
    return pictures


@pytest.mark.parametrize("packed", [False, True])
def test_fashion_mnist_is_read_from_its_files(tmp_path, packed):
    pictures, labels = write_fashion(tmp_path, packed=packed)
    data = image_data.fashion_mnist(str(tmp_path), train=50)
    assert {name: len(split.targets) for name, split in data.splits.items()} == {
        "train": 50,
        "validation": 12,
        "test": 20,
    }
    assert data.splits["test"].inputs.dtype == torch.uint8
    np.testing.assert_array_equal(data.splits["test"].inputs[:, 0], pictures)
    np.testing.assert_array_equal(data.splits["test"].targets, labels)


@DEBIAN
def test_debians_fashion_mnist_is_what_was_published():
    data = image_data.fashion_mnist()
    sizes = [len(data.splits[name].targets) for name in ("train", "validation", "test")]
    assert sizes == [55_000, 5_000, 10_000]
    assert data.splits["test"].targets.bincount().tolist() == [1000] * 10
    mean = data.splits["train"].inputs.float().mean() / 255
    assert float(mean) == pytest.approx(0.286, abs=0.001)  # the usual mean for normalization


@pytest.mark.parametrize("inside", [".", "cifar-10-batches-py"])
def test_cifar10_is_read_from_its_batches(tmp_path, inside):
    pictures = write_cifar(tmp_path / "given" / inside)
    data = image_data.cifar10(str(tmp_path / "given"))
    assert len(data.splits["train"].targets) == 90
    assert data.sample_shape == (3, 32, 32)
    np.testing.assert_array_equal(data.splits["test"].inputs.flatten(1), pictures)


def test_a_folder_without_the_data_is_an_error_that_lists_what_was_looked_in(tmp_path):
    for read in (image_data.fashion_mnist, image_data.cifar10):
        with pytest.raises(
            InputError, match=rf"was not found in {re.escape(str(tmp_path))}.*--data-dir"
        ):
            read(str(tmp_path))


def test_damaged_files_are_an_error(tmp_path):
    write_fashion(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"no images")
    with pytest.raises(InputError, match="is no IDX file"):
        image_data.fashion_mnist(str(tmp_path))
    write_cifar(tmp_path / "cifar")
    (tmp_path / "cifar" / "data_batch_2").write_bytes(b"no pickle")
    with pytest.raises(InputError, match="is no batch of CIFAR-10"):
        image_data.cifar10(str(tmp_path / "cifar"))


@pytest.mark.parametrize("network", ["convnet", "resnet18"])
def test_a_study_of_fashion_mnist(tmp_path, network, with_store):
    write_fashion(tmp_path)
    result = run(
        "fashion_mnist.py", *SMALL, "--data-dir", str(tmp_path), "--network", network, "--images", "100"
    )
    assert result.returncode == 0, result.stderr
    assert "baseline" in result.stdout


def test_a_study_of_cifar10(tmp_path, with_store):
    write_cifar(tmp_path / "cifar")
    result = run("cifar10.py", *SMALL, "--data-dir", str(tmp_path / "cifar"))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "arguments", [("--network", "lenet"), ("--images", "many"), ("--data-dir", "nowhere")]
)
def test_nonsense_is_one_line_and_exit_code_2(arguments):
    result = run("fashion_mnist.py", *arguments)
    assert result.returncode == 2
    assert re.fullmatch(r"error: .*\n", result.stderr)


def test_the_dropout_study_draws_a_curve_for_each_rate(tmp_path):
    write_fashion(tmp_path)
    result = run(
        "dropout.py", "--data-dir", str(tmp_path), "--images", "100", "--epochs", "2", "--seeds", "2"
    )
    assert result.returncode == 0, result.stderr
    assert len(re.findall(r"^rate 0\.\d  \S+ ± \S+  \S+ ± \S+$", result.stdout, re.MULTILINE)) == 4
    assert Path("dropout.png").read_bytes().startswith(b"\x89PNG")


def table(output):
    """Return the rows of numbers, by name."""
    rows = (re.split(r" {2,}", line.strip()) for line in output.splitlines())
    return {row[0]: [float(v) for v in row[1:]] for row in rows if len(row) > 2 and row[0] != "linear"}


def test_signals_fare_as_the_lesson_says_and_in_relu_as_it_does_not():
    result = run("initialization.py", "--width", "128")
    assert result.returncode == 0, result.stderr
    found = table(result.stdout)
    assert found["normal"][0] > 1e10
    assert found["gaussian"][0] < 1e-10
    linear, tanh, relu = found["lecun_normal"]
    assert 0.3 < linear < 3
    assert tanh < 0.5
    assert relu < 1e-2
    assert 0.3 < found["he_normal"][2] < 3
    assert Path("initialization.png").exists()


def test_gradients_vanish_through_sigmoids_and_not_under_batch_norm():
    result = run("vanishing_gradients.py", "--width", "64")
    assert result.returncode == 0, result.stderr
    found = table(result.stdout)
    for kind in ("glorot_normal", "he_normal"):
        assert found[f"{kind}, norm none"][0] < 1e-6
        assert found[f"{kind}, norm batch"][0] > 1e-2
    assert found["he_normal, norm none"][1] > 1e-2
    assert Path("gradients.png").exists()
