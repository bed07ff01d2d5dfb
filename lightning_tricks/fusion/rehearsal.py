"""Does a group compute what its members would alone? Tried on one batch before anything is trained.

`vmap` knows most of what networks do, and refuses most of what it does not know; some it computes
otherwise, in silence. So one member passes a batch forward and back by itself too.
"""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_tricks.fusion.member import Member
from lightning_tricks.fusion.stack import Stack, Unfusible, network_of, tensors_of

TOLERANCE = 0.01
"""By so much of its length a loss, a gradient or a buffer may differ: sums have another order."""


def rehearse(stack: Stack, members: Sequence[Member]) -> None:
    """Pass a batch through all networks as one, and through the last of them alone.

    Weights, buffers and random states are afterwards what they were.

    Args:
        stack: of the networks.
        members: whose they are.

    Raises:
        Unfusible: if the results differ, or layers keep something beside tensors.
        Exception: what a pass through the networks raised.
    """
    last, place = members[-1], len(members) - 1
    last.module.train()
    stack.follow(last.module)
    inputs, targets = _example(last)
    held, random = stack.state(), [member.random.get_state() for member in members]
    attributes = _attributes(stack.network)
    outputs = stack.outputs(torch.stack([inputs] * len(members)))
    loss_of = torch.vmap(last.module.loss_of, in_dims=(0, None), randomness="error")
    losses = loss_of(outputs, targets)
    stack.backward(losses)
    for name, value in _attributes(stack.network).items():
        if attributes.get(name) is not value:
            raise Unfusible(f"a layer changes its {name.rpartition('.')[2]} as it goes")
    buffers = {name: tensor[place].clone() for name, tensor in stack.held.items()}
    mine = {"loss": losses[place].detach(), "gradients": stack.gradients[place], **buffers}
    stack.restore(held)
    for member, state in zip(members, random, strict=True):
        member.random.set_state(state)
    theirs = _alone(last, inputs, targets, stack.columns)
    last.random.set_state(random[-1])
    for name, tensor in theirs.items():
        if not _close(mine[name].float(), tensor.float()):
            raise Unfusible(f"the {name} of a step would be other numbers than alone")


def _example(member: Member) -> tuple[Tensor, Tensor]:
    """Return the first samples, as the network takes them, and their targets."""
    inputs, targets = (part[: member.loader.batch_size] for part in member.loader.split)
    return member.module.cast(inputs.to(member.random.device)), targets.to(member.random.device)


def _alone(
    member: Member, inputs: Tensor, targets: Tensor, columns: dict[str, slice]
) -> dict[str, Tensor]:
    """Return the loss of a member, its gradients and what becomes of its buffers, by itself."""
    module = member.module
    tensors = {name: tensor.detach().clone() for name, tensor in tensors_of(module)}
    leaves = [tensors[name].requires_grad_() for name in columns]
    with member.drawing():
        outputs = functional_call(network_of(module), tensors, (inputs,))
        loss = module.loss_of(outputs, targets)
    gradients = torch.autograd.grad(loss, leaves)
    buffers = {name: tensors[name].detach() for name in tensors if name not in columns}
    whole = torch.cat([gradient.flatten() for gradient in gradients])
    return {"loss": loss.detach(), "gradients": whole, **buffers}


def _close(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors are equal but for rounding; where they are not finite, all is alike."""
    if not (torch.isfinite(one).all() and torch.isfinite(other).all()):
        return True
    length = torch.linalg.vector_norm(other)
    return bool(torch.linalg.vector_norm(one - other) <= TOLERANCE * length + 1e-6)


def _attributes(network: nn.Module) -> dict[str, object]:
    """Return what layers hold beside parameters and buffers, as far as one sees whether it changes."""
    layers = chain.from_iterable(
        ((f"{name}.{key}", value) for key, value in vars(layer).items())
        for name, layer in network.named_modules()
    )
    return {name: value for name, value in layers if isinstance(value, (bool, int, float, str, Tensor))}
