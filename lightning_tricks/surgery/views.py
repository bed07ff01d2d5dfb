"""Which parameter a tensor is, shows, or is computed from."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class View(NamedTuple):
    """A parameter, a view of one, or what is computed from it number by number."""

    name: str
    axes: tuple[tuple[int, ...], ...]
    """The parameter's axes at each axis; none at a new one, several at one that joins them."""
    changed: bool = False
    """Whether a number differs from the parameter's, except for those that a mask sets to zero."""

    @property
    def kept(self) -> str:
        """Why the parameter must not be drawn again, as a weight; empty if it may."""
        held = [axis for axes in self.axes for axis in axes]
        if len(held) > len(set(held)) or any(len(axes) > 1 for axes in self.axes):
            return "they are used in another shape"
        # The parameter's scale was chosen for what is computed from it.
        return "they are changed before they are used" if self.changed else ""

    @property
    def in_order(self) -> bool:
        """Whether the axes are the parameter's own, as a kernel's must be."""
        return self.axes == tuple((axis,) for axis in range(len(self.axes)))

    def of(self, axes: Sequence[int]) -> tuple[int, ...]:
        """Return the parameter's axes at some axes."""
        return tuple(dict.fromkeys(held for axis in axes for held in self.axes[axis]))


class Views:
    """The parameters of a network, and tensors that are known by where their numbers lie in memory."""

    def __init__(self, network: nn.Module) -> None:
        self._parameters = dict(network.named_parameters())
        self._by_id: dict[int, View] = {}
        self._by_memory: dict[int, list[tuple[Tensor, View]]] = {}
        for name, parameter in self._parameters.items():
            self._hold(parameter, View(name, tuple((axis,) for axis in range(parameter.dim()))))

    def parameter(self, name: str) -> nn.Parameter:
        """Return the parameter of a name."""
        return self._parameters[name]

    def of(self, tensor: Any) -> View | None:
        """Return what a tensor shows of a parameter; None if it is another tensor."""
        if not isinstance(tensor, Tensor):
            return None
        if (known := self._by_id.get(id(tensor))) is not None:
            return known
        for whole, view in self._by_memory.get(_memory(tensor), ()):  # several may lie in one
            first = tensor.storage_offset() - whole.storage_offset()
            if 0 <= first < whole.numel() and tensor.dtype == whole.dtype and not _repeats(tensor):
                moves = zip(tensor.shape, tensor.stride(), strict=True)
                axes = tuple(view.of(_axes_at(whole, size, stride)) for size, stride in moves)
                return view._replace(axes=axes)
        return None

    def names(self, tensors: Sequence[Any]) -> list[str]:
        """Return the names of the parameters that some tensors show."""
        return [view.name for tensor in tensors if (view := self.of(tensor)) is not None]

    def note(self, args: Sequence[Any], result: Any, *, masks: bool = False) -> None:
        """Note the result of a function if each number of it is computed from one of a parameter.

        Args:
            args: the arguments of the function.
            result: its result.
            masks: whether it only drops some numbers, as dropout does.
        """
        if not isinstance(result, Tensor) or result.dim() < 2 or not result.requires_grad:
            return
        found = [(tensor, view) for tensor in args if (view := self.of(tensor)) is not None]
        if len({view.name for _, view in found}) != 1 or self.of(result) is not None:
            return
        tensor, view = found[0]
        if tensor.shape == result.shape and tensor.requires_grad and _memory(result):
            changed = view.changed or not (masks or _alike(tensor, result))
            self._hold(result, view._replace(changed=changed))

    def _hold(self, tensor: Tensor, view: View) -> None:
        self._by_id[id(tensor)] = view
        if address := _memory(tensor):
            self._by_memory.setdefault(address, []).append((tensor, view))


def _memory(tensor: Tensor) -> int:
    """Return the address of a tensor's numbers; 0 if it has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # sparse tensors, and those of a functional transform
        return 0


def _repeats(tensor: Tensor) -> bool:
    """Tell whether numbers of a tensor are at several places of it, as after `expand`."""
    moves = zip(tensor.shape, tensor.stride(), strict=True)
    return any(stride == 0 and size > 1 for size, stride in moves)


def _axes_at(whole: Tensor, size: int, stride: int) -> list[int]:
    """Return the axes of a tensor along which an axis of a view of it moves.

    Args:
        whole: the tensor.
        size: the size of the view's axis.
        stride: its stride.
    """
    every = list(zip(whole.shape, whole.stride(), range(whole.dim()), strict=True))
    if size == 1:
        alike = sorted((length, axis) for length, step, axis in every if step == stride)
        return [axis for _, axis in alike[:1]]
    moved = [(step, axis) for length, step, axis in every if length > 1 and step <= (size - 1) * stride]
    below = max((step for step, _ in moved if step <= stride), default=0)
    return [axis for step, axis in sorted(moved, reverse=True) if step >= below]


def _alike(tensor: Tensor, result: Tensor) -> bool:
    """Tell whether each number of a result is zero or that of a tensor, except for rounding."""
    with torch.no_grad():
        close = torch.isclose(result.to(tensor.dtype), tensor, rtol=0.01)
        return bool((close | (result == 0)).all())
