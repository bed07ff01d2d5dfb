"""Fingerprints: equal for equal data, functions and settings, on every machine and at any time."""

import ast
import functools
import hashlib
import inspect
import sys
import sysconfig
import textwrap
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_tricks.data.in_memory import InMemoryData
from lightning_tricks.data.tensor_loader import Split

SAMPLES = 1000
"""Number of evenly spaced samples of a split that its fingerprint uses."""
_WHERE = {
    "accelerator",
    "devices",
    "strategy",
    "num_nodes",
    "plugins",
    "profiler",
    "default_root_dir",
}
"""Trainer arguments that say where it trains, not what."""


def of_data(data: pl.LightningDataModule, example: Any) -> dict[str, str]:
    """Return fingerprints of a data module: of its splits in memory, or else of an example.

    Args:
        data: the data module.
        example: returns the first validation batch of a data module that is not in memory.
    """
    if isinstance(data, InMemoryData):
        splits = {name: _of_split(split) for name, split in data.splits.items()}
        return {**splits, "batch_size": str(data.batch_size)}
    batch, again = example(), example()
    found = {"validation batch": _of_batch(batch)}
    if found["validation batch"] != _of_batch(again):  # shuffled or augmented
        found["validation batch"] = _shapes(batch)
    return found


def of_function(function: Any) -> str:
    """Return the name of a function or class and, for the user's own, a hash of its source.

    Comments and layout do not change it.
    """
    if isinstance(function, functools.partial):
        given = [_plain(value) for value in (*function.args, *sorted(function.keywords.items()))]
        return f"{of_function(function.func)}({', '.join(given)})"
    if not hasattr(function, "__qualname__"):  # a callable object
        return f"{of_function(type(function))}({_attributes(function)})"
    if not _own(function):
        return f"{function.__module__}.{function.__qualname__}"
    captured = [_plain(cell.cell_contents) for cell in getattr(function, "__closure__", None) or ()]
    return f"{function.__qualname__} {_digest([_source(function), *captured, *_used(function, set())])}"


def of_network(network: nn.Module) -> str:
    """Return a fingerprint of a network's layers and class."""
    return _digest([repr(network), of_function(type(network))])


def of_settings(trainer: Mapping[str, Any]) -> dict[str, str]:
    """Return the Trainer arguments that affect training."""
    return {name: _plain(value) for name, value in sorted(trainer.items()) if name not in _WHERE}


def _of_split(split: Split) -> str:
    picked = np.unique(np.linspace(0, len(split.inputs) - 1, SAMPLES).round().astype(int))
    return _of_batch([part[torch.from_numpy(picked).to(part.device)] for part in split], split)


def _of_batch(batch: Any, shown: Any = None) -> str:
    parts = [part.cpu().contiguous().numpy().tobytes() for part in _tensors(batch)]
    return f"{_shapes(batch if shown is None else shown)} {_digest(parts)}"


def _shapes(batch: Any) -> str:
    return ", ".join(f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in _tensors(batch))


def _tensors(batch: Any) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch.float() if batch.dtype == torch.bfloat16 else batch]
    parts = list(batch.values()) if isinstance(batch, Mapping) else batch
    return [t for part in parts for t in _tensors(part)] if isinstance(parts, (list, tuple)) else []


def _attributes(thing: Any) -> str:
    """Return the public plain attributes of an object, such as the smoothing of a loss."""
    plain = (str, int, float, bool, type(None))
    held = {name: v for name, v in vars(thing).items() if isinstance(v, plain) and name[0] != "_"}
    return ", ".join(f"{name}={value!r}" for name, value in sorted(held.items()) if name != "training")


def _used(function: Any, seen: set[int]) -> Iterator[str]:
    """Walk the sources of the user's functions, and the plain globals, that a function uses."""
    seen.add(id(function))
    code = getattr(function, "__code__", None)
    for name in code.co_names if code else ():
        value = function.__globals__.get(name)
        if isinstance(value, (str, int, float, bool)):
            yield f"{name}={value!r}"
        elif (
            callable(value) and id(value) not in seen and hasattr(value, "__qualname__") and _own(value)
        ):
            yield _source(value)
            yield from _used(value, seen)


def _own(function: Any) -> bool:
    """Tell whether a function or class is the user's: not from an installed package or this one."""
    name = str(function.__module__)
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    paths = [sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed = any(Path(file).is_relative_to(path) for path in paths)
    return not installed and name.partition(".")[0] not in (__package__, "builtins")


def _source(function: Any) -> str:
    """Return the source of a function or class in one layout; empty if there is none."""
    try:
        if getattr(function, "__name__", "") == "<lambda>":
            return _lambdas(function)
        return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(function))))
    except (OSError, TypeError, SyntaxError, tokenize.TokenError):  # the file was edited since
        return ""


def _lambdas(function: Any) -> str:
    """Return all lambdas in the line of a lambda, because Python does not tell which one it is."""
    lines, _ = inspect.findsource(function)
    first = function.__code__.co_firstlineno
    tree = ast.parse("".join(lines))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda) and node.lineno == first]
    return "; ".join(ast.unparse(node) for node in found)


def _plain(value: Any) -> str:
    """Write a value without memory addresses, so that equal values give equal text."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_plain(item) for item in value)}]"
    return of_function(value) if callable(value) else type(value).__qualname__


def _digest(parts: Iterable[str | bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part if isinstance(part, bytes) else part.encode())
        found.update(b"\0")
    return found.hexdigest()[:12]
