"""The residual branches of an unmodified module: paths that are added to a shortcut.

`torch.fx` traces the module. If its code cannot be traced, each of its children is traced instead.
"""

import operator
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import fx, nn
from torchvision.ops import StochasticDepth

from lightning_tricks.surgery.attach import NORM
from lightning_tricks.surgery.layers import DROPOUTS
from lightning_tricks.surgery.norms import NORMS, after_norm, known
from lightning_tricks.surgery.torch_internals import submodules

_ADDITIONS = {operator.add, operator.iadd, torch.add, "add", "add_"}
_ABOUT = {"size", "dim", "numel", len, getattr}
"""Operations that take a tensor's shape or device only, as those that number positions do."""
_PASSING = (nn.Identity, StochasticDepth, *DROPOUTS)
"""Modules that may stand between a branch's last layer and the sum."""


_LEAVES = (*_PASSING, *NORMS)
"""Modules that count as one operation, in addition to those of `torch.nn`."""


class Branch(NamedTuple):
    """A path whose result is added to a shorter one from the same place."""

    end: str
    """Path of its last module; empty if it ends in another operation."""
    norm: str
    """Path of the norm at its end; empty if it does not end in a norm."""
    alone: bool
    """Whether the last module is called nowhere else."""


def branches(module: nn.Module) -> list[Branch]:
    """Return the residual branches of a module, in the order of its forward."""
    with _attributes_kept(module):
        return list(_branches(module, ""))


@contextmanager
def _attributes_kept(module: nn.Module) -> Iterator[None]:
    """Restore the attributes that a module's own code sets, such as its last attention weights."""
    before = [(part, dict(vars(part))) for part in module.modules()]
    try:
        yield
    finally:
        for part, attributes in before:
            vars(part).clear()
            vars(part).update(attributes)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _LEAVES) or super().is_leaf_module(m, module_qualified_name)


def _branches(module: nn.Module, prefix: str) -> Iterator[Branch]:
    try:
        graph = _Tracer().trace(module)
    except Exception:  # a tracer cannot follow all user code
        for name, child in module.named_children():
            yield from _branches(child, f"{prefix}{name}.")
        return
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        if node.op in ("call_function", "call_method") and node.target in _ADDITIONS:
            end = _longer(node)
            if end is not None:
                yield _describe(module, prefix, end, calls)


def _longer(addition: fx.Node) -> fx.Node | None:
    """Return the operand that is further from where both paths begin; None if the lengths are equal."""
    operands = [arg for arg in addition.args if isinstance(arg, fx.Node)]
    if len(operands) != 2:
        return None
    first, second = map(_distances, operands)
    common = first.keys() & second.keys()
    if not common:
        return None
    fork = min(common, key=lambda node: first[node] + second[node])
    if first[fork] == second[fork]:
        return None
    return operands[0] if first[fork] > second[fork] else operands[1]


def _distances(node: fx.Node) -> dict[fx.Node, int]:
    """Return the distance to each earlier result, in operations on its values."""
    found = {node: 0}
    waiting = deque([node])
    while waiting:
        later = waiting.popleft()
        if later.target in _ABOUT:
            continue
        for earlier in later.all_input_nodes:
            if earlier not in found:
                found[earlier] = found[later] + 1
                waiting.append(earlier)
    return found


def _describe(module: nn.Module, prefix: str, end: fx.Node, calls: Counter[object]) -> Branch:
    last, alone = "", calls[end.target] == 1
    if end.op == "call_module":
        last = f"{prefix}{end.target}"
    while end.op == "call_module":
        target = str(end.target)
        layer = module.get_submodule(target)
        if NORM in submodules(layer):
            return Branch(last, f"{prefix}{target}.{NORM}", alone)
        if known(layer) and not after_norm(layer):
            return Branch(last, f"{prefix}{target}", alone)
        if not isinstance(layer, _PASSING):
            break
        end = end.all_input_nodes[0]
    return Branch(last, "", alone)
