"""Checks on one batch, before training, that a group computes what its members would compute alone.

`vmap` supports most operations of networks and refuses most others, but computes some differently
without an error. So one member also passes a batch alone, in training and in evaluation. Its weights are
moved a little, because a layer that starts at zero would hide the layers before it. A user's trick may
draw random numbers that all members share; `check_draws` tests this first.
"""

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from lightning_tricks.fusion.member import Member
from lightning_tricks.fusion.stack import Stack, network_of, tensors_of
from lightning_tricks.fusion.unfusible import Unfusible

TOLERANCE = 0.01
"""Relative tolerance of a tensor; a group adds its sums in another order."""
NUDGE = 0.02
"""Standard deviation of the noise added to the weights."""
Numbers = Mapping[str, Tensor]
"""Results of a pass, by name."""


def check_parity(stack: Stack, members: Sequence[Member]) -> None:
    """Pass a batch through the last network alone and through all as one, and compare.

    Afterwards weights, buffers and random states are restored.

    Args:
        stack: the stacked networks.
        members: the members of the stack.

    Raises:
        Unfusible: if the results differ, or a pass changes state that is no tensor.
        Exception: whatever a pass through the networks raises.
    """
    weights, last = stack.weights.detach().clone(), members[-1]
    with torch.no_grad():
        nudges = torch.randn(weights.shape[1], generator=torch.Generator().manual_seed(0))
        stack.weights += NUDGE * nudges.to(weights)
    try:
        with _own_draws("a network"):
            for training in (True, False):
                _compare(stack, members, training)
    finally:
        last.module.train()
        with torch.no_grad():
            stack.weights.copy_(weights)


def check_draws(member: Member) -> None:
    """Check the tricks of a member that change batches, on one batch.

    Raises:
        Unfusible: if they draw random numbers that are not the member's own.
        Exception: whatever a trick raises.
    """
    if member.changes_batches:
        with _own_draws("a trick"), member.drawing():
            member.module.learned(_batch(member))


@contextmanager
def _own_draws(who: str) -> Iterator[None]:
    """Raise `Unfusible` if random numbers other than torch's are drawn."""
    drawn = _drawn()
    yield
    if _drawn() != drawn:
        raise Unfusible(f"{who} draws with NumPy's or Python's random numbers")


def _compare(stack: Stack, members: Sequence[Member], training: bool) -> None:
    last, held = members[-1], stack.state()
    states = [member.random.get_state() for member in members]
    last.module.train(training)
    stack.follow(last.module)
    loss, layers = last.module.loss, _attributes(stack.network)
    last.module.loss = copy.deepcopy(loss)  # a loss may keep state too
    kept = _attributes(last.module.loss)
    try:
        # Alone first, so that modules cache ordinary tensors.
        alone = _alone(last, stack.columns)
        _set(members, states)
        together = _together(stack, members, held)
        changed = _changed(layers, _attributes(stack.network)) or _changed(
            kept, _attributes(last.module.loss)
        )
    finally:
        last.module.loss = loss
        stack.restore(held)
        _set(members, states)
    if changed:
        raise Unfusible(f"a layer or the loss changes its {changed} as it goes")
    length = sum(float(tensor.norm()) for name, tensor in alone.items() if name in stack.columns)
    for name, expected in alone.items():
        floor = 1e-4 * length if name in stack.columns else 1e-6
        if not _close(together[name], expected, floor):
            raise Unfusible(f"the {name} of a step would differ from training alone")


def _set(members: Sequence[Member], states: Sequence[Tensor]) -> None:
    for member, state in zip(members, states, strict=True):
        member.random.set_state(state)


def _batch(member: Member) -> tuple[Tensor, Tensor]:
    """Return copies of the first samples and their targets."""
    size, device = member.loader.batch_size, member.random.device
    inputs, targets = (part[:size].clone().to(device) for part in member.loader.split)
    return inputs, targets


def _example(member: Member) -> tuple[Tensor, Tensor]:
    """Return the first samples, cast for the network, and their targets."""
    inputs, targets = _batch(member)
    return member.module.cast(inputs), targets


def _alone(member: Member, columns: Mapping[str, slice]) -> Numbers:
    """Return the results of a pass of one member alone."""
    module = member.module
    before = {name: tensor.detach() for name, tensor in tensors_of(module)}
    tensors = {name: tensor.clone() for name, tensor in before.items()}
    leaves = {name: tensors[name].requires_grad_(module.training) for name in columns}
    inputs, targets = _example(member)
    with member.drawing(), torch.set_grad_enabled(module.training):
        outputs = functional_call(network_of(module), tensors, (inputs,))
        numbers = _numbers(outputs)
        if module.training:
            loss = module.loss_of(outputs, targets)
            numbers |= dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    return numbers | _changes(before, tensors, columns)


def _together(stack: Stack, members: Sequence[Member], held: Numbers) -> Numbers:
    """Return the last member's results of a pass of all; `held` are the buffers before it."""
    last, place = members[-1], len(members) - 1
    before = {name: tensor[place] for name, tensor in held.items()}
    inputs, targets = _example(last)
    with torch.set_grad_enabled(last.module.training):
        outputs = stack.outputs(torch.stack([inputs] * len(members)))
        numbers = _numbers([whole[place] for whole in tree_leaves(outputs)])
        if last.module.training:
            loss_of = torch.vmap(last.module.loss_of, in_dims=(0, None), randomness="error")
            stack.backward(loss_of(outputs, targets))
            row = stack.gradients[place].clone()
            numbers |= {name: row[columns] for name, columns in stack.columns.items()}
    now = {name: tensor[place] for name, tensor in stack.held.items()}
    return numbers | _changes(before, now, stack.columns)


def _numbers(outputs: Any) -> dict[str, Tensor]:
    return {f"output {at}": some.detach().clone() for at, some in enumerate(tree_leaves(outputs))}


def _changes(before: Numbers, now: Numbers, columns: Mapping[str, slice]) -> dict[str, Tensor]:
    """Return the changes of the buffers."""
    return {
        name: _double(now[name].detach()) - _double(before[name])
        for name in before
        if name not in columns
    }


def _double(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _close(one: Tensor, other: Tensor, floor: float) -> bool:
    """Tell whether two tensors are equal up to rounding, or one of them is not finite."""
    one, other = _double(one.flatten()), _double(other.flatten())
    if not (torch.isfinite(one).all() and torch.isfinite(other).all()):
        return True
    return bool(torch.linalg.vector_norm(one - other) <= TOLERANCE * other.norm() + floor)


def _attributes(whole: Any) -> dict[str, Any]:
    """Return the attributes of layers, or of a loss, that can be compared, without their parameters."""
    layers = dict(whole.named_modules()) if isinstance(whole, nn.Module) else {"": whole}
    return {
        f"{name}.{key}": repr(value) if isinstance(value, (dict, list, set)) else value
        for name, layer in layers.items()
        for key, value in getattr(layer, "__dict__", {}).items()
        if isinstance(value, (bool, int, float, str, Tensor, list, dict, set))
        and key not in ("_parameters", "_modules", "training")
        and not (key == "_buffers" and layer is not whole)
    }


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the name of an attribute that changed; empty if none did."""
    for name, value in now.items():
        same = before.get(name) is value or (
            not isinstance(value, Tensor) and name in before and before[name] == value
        )
        if not same:
            return name.rpartition(".")[2]
    return ""


def _drawn() -> tuple[Any, ...]:
    """Return the states of the random numbers that all members share."""
    kind, numbers, *rest = np.random.get_state()  # noqa: NPY002  # only the legacy API has a global state
    return random.getstate(), kind, np.asarray(numbers).tobytes(), *rest
