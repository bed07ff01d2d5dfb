"""Teachers: parts of a network that are copies of other parts, and follow them."""

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import nn


def copies(network: nn.Module, reached: Collection[int]) -> Iterator[tuple[str, str]]:
    """Walk the paths of modules that get no gradients, each with a trained one that it is a copy of.

    A module whose parameters are frozen is a copy of a trained one of the same structure. One that runs
    without gradients, as under `torch.no_grad()`, must have the same weights too.

    Args:
        network: the network that ran.
        reached: the ids of the parameters that its result depends on; empty if unknown.
    """
    walked: list[str] = []
    learning: dict[Any, str] = {}
    still: list[tuple[str, Any]] = []
    idle: list[tuple[str, Any]] = []
    for path, module in network.named_modules():
        parameters = list(module.named_parameters())
        if not path or len(parameters) < 2:
            continue
        built = (type(module), tuple((name, tuple(p.shape)) for name, p in parameters))
        if not any(p.requires_grad for _, p in parameters):
            still.append((path, built))
        elif reached and not any(id(p) in reached for _, p in parameters):
            idle.append((path, built))
        elif all(p.requires_grad for _, p in parameters):
            learning.setdefault(built, path)
    alike = (
        pair for pair in idle if pair[1] in learning and _equal(network, pair[0], learning[pair[1]])
    )
    for path, built in (*still, *alike):
        inside = any(path.startswith(f"{outer}.") for outer in walked)
        if built in learning and not inside:
            walked.append(path)
            yield path, learning[built]


def _equal(network: nn.Module, one: str, other: str) -> bool:
    """Tell whether two modules have the same weights."""
    pairs = zip(*(network.get_submodule(path).parameters() for path in (one, other)), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
