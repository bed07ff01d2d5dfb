"""The images of the studies: Fashion-MNIST and CIFAR-10, read from their published files."""

import gzip
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor

from lightning_tricks import InMemoryData, InputError, Split

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""The folder of Debian's package `dataset-fashion-mnist`."""
DOWNLOADS = Path("data")


def fashion_mnist(
    data_dir: str | None = None, train: int = 55_000, batch_size: int = 128
) -> InMemoryData:
    """Return Fashion-MNIST: images of (1, 28, 28) bytes, ten classes of clothes.

    The last 5,000 training images validate; the 10,000 test images are the test split.

    Args:
        data_dir: a folder with the four IDX files, gzipped or not; by default Debian's folder, then
            the folder that torchvision downloads to.
        train: the number of training images, taken from the start.
        batch_size: the number of images in a training batch.

    Raises:
        InputError: if no folder has the files; lists the folders searched.
    """
    found = _folder(
        "Fashion-MNIST",
        [Path(data_dir)] if data_dir else [DEBIAN, DOWNLOADS / "FashionMNIST" / "raw"],
        lambda place: _idx(place, "t10k-labels-idx1-ubyte") is not None,
        None if data_dir else torchvision.datasets.FashionMNIST,
    )
    images, labels = _read(found, "train-images-idx3-ubyte"), _read(found, "train-labels-idx1-ubyte")
    held = Split(_read(found, "t10k-images-idx3-ubyte")[:, None], _read(found, "t10k-labels-idx1-ubyte"))
    return _three(Split(images[:, None], labels), held, train, batch_size)


def cifar10(data_dir: str | None = None, train: int = 45_000, batch_size: int = 128) -> InMemoryData:
    """Return CIFAR-10: images of (3, 32, 32) bytes, ten classes.

    The last 5,000 training images validate; the test batch is the test split.

    Args:
        data_dir: a folder with the pickled batches of the Python version, or with the folder
            `cifar-10-batches-py`; by default the folder that torchvision downloads to.
        train: the number of training images, taken from the start.
        batch_size: the number of images in a training batch.

    Raises:
        InputError: if no folder has the files; lists the folders searched.
    """
    root = Path(data_dir) if data_dir else DOWNLOADS
    found = _folder(
        "CIFAR-10",
        [root, root / "cifar-10-batches-py"],
        lambda place: (place / "test_batch").is_file(),
        None if data_dir else torchvision.datasets.CIFAR10,
    )
    batches = [_batch(found / f"data_batch_{number}") for number in range(1, 6)]
    whole = Split(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
    return _three(whole, _batch(found / "test_batch"), train, batch_size)


def _folder(
    name: str,
    places: list[Path],
    holds: Callable[[Path], bool],
    download: Callable[..., object] | None,
) -> Path:
    """Return the first folder that holds the data; if none does, download them to the last."""
    for place in places:
        if holds(place):
            return place
    if download is None:
        raise _missing(name, places)
    try:
        download(DOWNLOADS, download=True)
    except (OSError, RuntimeError) as error:
        raise _missing(name, [*places, f"a download ({error})"]) from None
    return places[-1]


def _three(whole: Split, test: Split, train: int, batch_size: int) -> InMemoryData:
    held = min(5_000, len(whole.targets) // 10)
    first = Split(*(part[:-held][:train] for part in whole))
    last = Split(*(part[-held:] for part in whole))
    return InMemoryData(first, last, test, batch_size=batch_size)


def _missing(name: str, places: list) -> InputError:
    return InputError(
        f"{name} was not found in {', '.join(map(str, places))}: give the folder with --data-dir"
    )


def _idx(place: Path, name: str) -> Path | None:
    return next((path for path in (place / name, place / f"{name}.gz") if path.is_file()), None)


def _read(place: Path, name: str) -> Tensor:
    """Read an IDX file: a header of big-endian numbers that ends with the sizes, then bytes."""
    path = _idx(place, name)
    if path is None:
        raise _missing(name, [place])
    try:
        content = (gzip.decompress if path.suffix == ".gz" else bytes)(path.read_bytes())
        dims = content[3]
        shape = np.frombuffer(content, ">u4", dims, offset=4).astype(int)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * dims).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise InputError(f"{path} is no IDX file of bytes: {error}") from None
    return torch.from_numpy(values.copy())


def _batch(path: Path) -> Split:
    try:
        with path.open("rb") as file:
            content = pickle.load(file, encoding="bytes")
        images = torch.from_numpy(np.asarray(content[b"data"], np.uint8)).view(-1, 3, 32, 32)
        return Split(images, torch.tensor(content[b"labels"]))
    except Exception as error:  # a damaged pickle may raise anything
        raise InputError(f"{path} is no batch of CIFAR-10: {type(error).__name__}: {error}") from None
