"""Teachers: parts of a network that are copies of other parts, and follow them."""

from collections.abc import Iterator
from typing import Any

from torch import nn


def copies(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Walk the paths of modules without gradients, each with a trained module of the same structure."""
    walked: list[str] = []
    learning: dict[Any, str] = {}
    still: list[tuple[str, Any]] = []
    for path, module in network.named_modules():
        parameters = list(module.named_parameters())
        if not path or len(parameters) < 2:
            continue
        built = (type(module), tuple((name, tuple(p.shape)) for name, p in parameters))
        if all(p.requires_grad for _, p in parameters):
            learning.setdefault(built, path)
        elif not any(p.requires_grad for _, p in parameters):
            still.append((path, built))
    for path, built in still:
        inside = any(path.startswith(f"{outer}.") for outer in walked)
        if built in learning and not inside:
            walked.append(path)
            yield path, learning[built]
