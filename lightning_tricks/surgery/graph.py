"""Facts read from autograd's graph, and from the torch functions that run."""

from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class _Listener(TorchFunctionMode):
    """Notes each function that is called, with the arguments of its last call."""

    def __init__(self) -> None:
        super().__init__()
        self.called: dict[str, Arguments] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        self.called[getattr(func, "__name__", "")] = args, kwargs or {}
        return func(*args, **(kwargs or {}))


@contextmanager
def functions_called() -> Iterator[dict[str, Arguments]]:
    """Note each torch function that is called meanwhile, with the arguments of its last call."""
    with _Listener() as listener:
        yield listener.called


def nodes_of(value: Any) -> list[Any]:
    """Return the nodes of tensors in autograd's graph."""
    return [t.grad_fn for t in tensors_in(value) if t.grad_fn is not None]


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in the output of a module."""
    leaves = tree_leaves(value)
    objects = [leaf for leaf in leaves if not isinstance(leaf, (Tensor, nn.Module))]
    leaves += [held for thing in objects for held in getattr(thing, "__dict__", {}).values()]
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def parameters_reached(roots: Iterable[Any]) -> set[int]:
    """Return the ids of the parameters that a result or a loss depends on."""
    return {id(node.variable) for node in _walk(roots) if hasattr(node, "variable")}


def ends(roots: Iterable[Any], owners: dict[Any, Any], derivatives: Iterable[Any] = ()) -> list[Any]:
    """Return the owners of the first nodes that have one, walking back through the graph.

    Args:
        roots: the nodes of a result or a loss.
        owners: the owners of some nodes.
        derivatives: nodes at which to stop: a derivative depends on each layer directly.
    """
    walked = _walk(roots, owners, derivatives)
    return list(dict.fromkeys(owners[node] for node in walked if node in owners))


def _walk(roots: Iterable[Any], last: Container[Any] = (), omitted: Iterable[Any] = ()) -> Iterator[Any]:
    """Walk the nodes back from some, each once.

    Args:
        roots: the nodes to begin with.
        last: nodes behind which the walk does not go on.
        omitted: nodes that it leaves out, with what only they depend on.
    """
    waiting, visited = list(roots), {None, *omitted}
    while waiting:
        node = waiting.pop()
        if node in visited:
            continue
        visited.add(node)
        yield node
        if node not in last:
            waiting += [earlier for earlier, _ in node.next_functions]
