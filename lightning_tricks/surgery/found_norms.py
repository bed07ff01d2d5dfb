"""Finds the norms of a network in the record of a run."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from lightning_tricks.surgery.anatomy import Norm
from lightning_tricks.surgery.convolutions import CONVOLUTIONS
from lightning_tricks.surgery.norms import NORMS, known, normalizes, place_of
from lightning_tricks.surgery.products import channels_of
from lightning_tricks.surgery.seen import Seen


def found_norms(modules: Mapping[str, nn.Module], seen: Seen, sided: bool) -> Iterator[Norm]:
    """Walk the modules that only normalize, in the order in which they run.

    Args:
        modules: the modules of a network by path.
        seen: the record of its run.
        sided: whether positions of its maps depend on one side only.
    """
    convolved = _convolved(modules, seen)
    ran = [path for path in seen.calls if path in modules]
    idle = [path for path in modules if path not in seen.calls]
    walked: set[int] = set()
    for path in (*ran, *idle):
        module = modules[path]
        if id(module) in walked:
            continue
        walked.add(id(module))
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            continue
        if known(module):
            found: Norm | None = place_of(path, module, convolved)
        else:
            found = _behaves(path, module, seen)
        if found is not None:
            if not found.last:
                shape = positions(path, seen)
                apart = found.apart or are_apart(shape, found.dims, sided=sided)
                found = replace(found, positions=math.prod(shape), apart=apart)
            yield found


def mixed_norms(modules: Mapping[str, nn.Module], pure: Iterable[Norm]) -> list[str]:
    """Return the names of the trained norm classes that may do more than normalize.

    Args:
        modules: the modules of a network by path.
        pure: those that only normalize.
    """
    ids = {id(modules[norm.path]) for norm in pure}
    return sorted(
        {
            f"{type(m).__module__}.{type(m).__qualname__}"
            for m in modules.values()
            if isinstance(m, NORMS)
            and id(m) not in ids
            and not known(m)
            and any(p.requires_grad for p in m.parameters())
        }
    )


def positions(path: str, seen: Seen) -> tuple[int, ...]:
    """Return the shape of a channel's positions in what a module returned; zero if unknown."""
    output = seen.calls[path].output if path in seen.calls else None
    return tuple(output.shape[2:]) if isinstance(output, Tensor) else (0,)


def are_apart(shape: Sequence[int], dims: int | None, *, sided: bool) -> bool:
    """Tell whether the positions of maps must be normalized apart.

    Args:
        shape: the shape of the positions that were seen.
        dims: number of dimensions of positions that a layer takes; None if unknown.
        sided: whether positions depend on one side only.
    """
    return sided or dims == 1 or (dims is None and len(shape) == 1 and shape[0] > 1)


def _behaves(path: str, module: nn.Module, seen: Seen) -> Norm | None:
    """Return the norm that a module is by its behavior."""
    call = seen.calls.get(path)
    if call is None or not call.inputs or not isinstance(call.output, Tensor):
        return None
    return normalizes(path, module, call.inputs[0], call.output)


def _convolved(modules: Mapping[str, nn.Module], seen: Seen) -> set[int]:
    """Return the numbers of channels that convolutions returned."""
    found = set()
    for use in seen.uses:
        if use.function in CONVOLUTIONS:
            owner, _, name = use.names[0].rpartition(".")
            found.add(channels_of(modules[owner].get_parameter(name).shape, [use]))
    return found
