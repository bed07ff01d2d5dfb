"""Apply a formula to a model's parameters, joined into flat tensors.

A whole group then costs a handful of tensor operations, however many parameters it has.
"""

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from torch import Tensor

from lightning_tricks.surgery.torch_internals import flatten, unflatten
from lightning_tricks.tricks.optimizers.penalized import PenalizedOptimizer

FLAT_NUMBERS = 2**20
"""Largest group, in numbers, that is joined. Joining a larger one costs more than it saves."""

State = dict[str, Any]
Update = Callable[[Tensor, State, float], Tensor]
"""Takes a gradient, the state and the learning rate; returns what to add to the weights."""
Direct = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""Takes the gradients of all parameters; returns them as the formula should see them."""


class FlatOptimizer(PenalizedOptimizer):
    """An optimizer that takes the steps of one formula, group by group.

    The parameters of a group share a device and a floating-point type.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, update: Update, direct: Direct) -> None:
        self._update, self._direct = update, direct
        super().__init__(groups, lr)

    def direct(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        return self._direct(gradients)

    def steps(
        self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]
    ) -> Sequence[Tensor]:
        return flat_steps(self._update, group, parameters, gradients, self.state)


def flat_steps(
    update: Update,
    group: dict[str, Any],
    parameters: list[Tensor],
    gradients: list[Tensor],
    states: MutableMapping[Tensor, State],
) -> Sequence[Tensor]:
    """Return the steps of a formula for the parameters of a group that have a gradient.

    A group consists of blocks of parameters that had gradients at the same steps. A block has one
    state, stored under its first parameter. Unless it is large, a group begins as one block. A block is
    split when only some of its parameters have a gradient.
    """
    lr, blocks = group["lr"], _blocks(group, parameters, states)
    if len(blocks) == 1:  # all parameters have a gradient
        return _step(update, parameters, gradients, states[parameters[0]], lr)
    found = dict(zip(parameters, gradients, strict=True))
    for places in blocks:
        block = [group["params"][place] for place in places]
        if block[0] in found:
            of_block = [found[parameter] for parameter in block]
            steps = _step(update, block, of_block, states[block[0]], lr)
            found.update(zip(block, steps, strict=True))
    return list(found.values())


def _step(
    update: Update, block: list[Tensor], gradients: list[Tensor], state: State, lr: float
) -> Sequence[Tensor]:
    if len(block) == 1:
        return [update(gradients[0], state, lr)]
    return unflatten(update(flatten(gradients), state, lr), block)


def _blocks(
    group: dict[str, Any], active: list[Tensor], states: MutableMapping[Tensor, State]
) -> list[list[int]]:
    """Split the blocks of a group where needed, and return them as positions in the group.

    The group holds them, because it is saved with the state.
    """
    parameters = group["params"]
    if "blocks" not in group:
        places = list(range(len(parameters)))
        small = sum(parameter.numel() for parameter in parameters) <= FLAT_NUMBERS
        group["blocks"] = [places] if small else [[place] for place in places]
    if len(active) < len(parameters):
        having = {id(parameter) for parameter in active}
        missing = {place for place, p in enumerate(parameters) if id(p) not in having}
        parts = [_part(parameters, places, missing, states) for places in group["blocks"]]
        group["blocks"] = [part for block in parts for part in block]
    blocks: list[list[int]] = group["blocks"]
    return blocks


def _part(
    parameters: list[Tensor],
    places: list[int],
    missing: set[int],
    states: MutableMapping[Tensor, State],
) -> list[list[int]]:
    """Split a block and its state into parameters with gradients and parameters without."""
    parts = [[p for p in places if p not in missing], [p for p in places if p in missing]]
    if not all(parts):
        return [places]
    whole = [parameters[place] for place in places]
    state = states.pop(whole[0], {})
    for part in parts:
        kept = [parameters[place] for place in part]
        states[kept[0]] = {name: _share(value, whole, kept) for name, value in state.items()}
    return parts


def _share(value: Any, whole: Sequence[Tensor], kept: Sequence[Tensor]) -> Any:
    """Return the part of a state's value that belongs to some parameters; a number belongs to all."""
    if not isinstance(value, Tensor):
        return value
    parts = dict(zip(whole, unflatten(value, whole), strict=True))
    chosen = [parts[parameter] for parameter in kept]
    return chosen[0].clone() if len(chosen) == 1 else flatten(chosen)
