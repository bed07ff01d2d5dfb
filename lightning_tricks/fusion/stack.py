"""The networks of several trials as one: their tensors stacked, one forward and one backward for all."""

import copy
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils.parametrize import type_before_parametrizations

from lightning_tricks.fusion.noise import NOISES, Noise
from lightning_tricks.fusion.unfusible import Unfusible
from lightning_tricks.module.tricks_module import TricksModule
from lightning_tricks.surgery.attach import has_hooks
from lightning_tricks.surgery.torch_internals import WeightNormFormula
from lightning_tricks.tricks.weight_decay import norms_and_biases


class Stack:
    """K networks of one structure.

    All trainable numbers of a network lie in a row of one matrix. Its own parameters and buffers
    become views of the stack, so that whatever acts on a network acts on its part of the stack.

    Args:
        modules: on one device, their scaling fitted.
        draws: the random state of each.

    Raises:
        Unfusible: if their networks are not of one structure.
    """

    def __init__(self, modules: Sequence[TricksModule], draws: Sequence[torch.Generator]) -> None:
        _check_alike(modules)
        self.network = network_of(modules[0], copied=True)
        for name, layer in list(self.network.named_modules()):
            if type(layer) in NOISES:
                noise = Noise([module.get_submodule(name) for module in modules], draws)
                self.network.set_submodule(name, noise)
            elif isinstance(layer, WeightNormFormula):
                self.network.set_submodule(name, _WeightNorm(layer.dim))
            elif getattr(layer, "padding_idx", None) is not None and _is_plain_embedding(layer):
                layer.__class__ = _Embedding
        self.columns = _columns(modules[0])
        """Where the numbers of each trainable parameter stand in a row, by its name."""
        self._gather(modules)

    def _gather(self, modules: Sequence[TricksModule]) -> None:
        """Stack the tensors of networks, and make theirs views of the stack."""
        found = [dict(tensors_of(module)) for module in modules]
        rows = [torch.cat([own[name].detach().flatten() for name in self.columns]) for own in found]
        self.weights = torch.stack(rows)
        """(K, P), all that is trained."""
        self.gradients = torch.zeros_like(self.weights)
        """(K, P), of the last backward pass."""
        shapes = {name: found[0][name].shape for name in self.columns}
        self._leaves = {
            name: self.weights[:, place].view(len(modules), *shapes[name]).requires_grad_()
            for name, place in self.columns.items()
        }
        self.held = {
            name: torch.stack([own[name].detach() for own in found])
            for name in found[0]
            if name not in self.columns
        }
        for number, own in enumerate(found):
            for name, tensor in own.items():
                whole = self._leaves[name] if name in self.columns else self.held[name]
                tensor.data = whole.detach()[number]

    def keep(self, places: Sequence[int], modules: Sequence[TricksModule]) -> None:
        """Keep some of the networks; the others are left with tensors of their own.

        Args:
            places: of those that stay.
            modules: all.
        """
        for place, module in enumerate(modules):
            if place not in places:
                for _, tensor in tensors_of(module):
                    tensor.data = tensor.detach().clone()
        for layer in self.network.modules():
            if isinstance(layer, Noise):
                layer.keep(places)
        if places:
            self._gather([modules[place] for place in places])

    def follow(self, module: TricksModule) -> None:
        """Switch layers to training or to evaluation, as they are in one of the modules."""
        modes = {name: layer.training for name, layer in module.named_modules()}
        for name, layer in self.network.named_modules():
            layer.training = modes.get(name, module.training)

    def outputs(self, inputs: Tensor, *, shared: bool = False) -> Any:
        """Pass inputs through all networks.

        Args:
            inputs: of each network, (K, N, …), or of all alike, (N, …).
            shared: whether all have the same inputs.

        Returns:
            What a network puts out, with the networks before the samples.
        """
        tensors = {**self._leaves, **self.held}
        dims = (0, None if shared else 0)
        return torch.vmap(self._one, in_dims=dims, randomness="error")(tensors, inputs)

    def _one(self, tensors: dict[str, Tensor], inputs: Tensor) -> Any:
        return functional_call(self.network, tensors, (inputs,))

    def backward(self, losses: Tensor) -> None:
        """Leave the gradient of each network's loss in its row of `gradients`.

        Args:
            losses: (K,).

        Raises:
            Unfusible: if a parameter took no part.
        """
        # The gradient of a sum is that of each part for whom it is of: NaNs stay where they are.
        found = torch.autograd.grad(losses.sum(), list(self._leaves.values()), allow_unused=True)
        if any(gradient is None for gradient in found):
            raise Unfusible("some parameters take no part in a step")
        rows = [gradient.reshape(len(self.weights), -1) for gradient in found]
        torch.cat(rows, 1, out=self.gradients)

    def state(self) -> dict[str, Tensor]:
        """Return a copy of what a forward pass may change beside the weights."""
        return {name: held.clone() for name, held in self.held.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Undo what forward passes changed since `state()`."""
        for name, held in self.held.items():
            held.copy_(state[name])


class _WeightNorm(nn.Module):
    """w = g·v/‖v‖ for each unit: torch's own kernel takes one network only."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, lengths: Tensor, directions: Tensor) -> Tensor:
        dims = [dim for dim in range(directions.dim()) if dim != self.dim]
        norms: Tensor = torch.linalg.vector_norm(directions, dim=dims, keepdim=True)
        return directions * (lengths / norms)


def _is_plain_embedding(layer: nn.Module) -> bool:
    return type(layer).forward is nn.Embedding.forward and not layer.max_norm


class _Embedding(nn.Embedding):
    """Leaves the padding without a gradient: torch's own forgets about it inside of `vmap`."""

    def forward(self, indices: Tensor) -> Tensor:
        assert self.padding_idx is not None  # else torch's own serves
        learns = torch.arange(self.num_embeddings, device=indices.device).ne(self.padding_idx)
        weight = torch.where(learns[:, None], self.weight, self.weight.detach())
        return functional.embedding(indices, weight)


def network_of(module: TricksModule, copied: bool = False) -> nn.Module:
    """Return all of a module that a forward pass goes through, by the names that it has there."""
    parts = {"cast": module.cast, "scaling": module.scaling, "backbone": module.backbone}
    held = nn.Sequential()
    for name, part in parts.items():
        if part is not None:
            held.add_module(name, copy.deepcopy(part) if copied else part)
    return held


def tensors_of(module: TricksModule) -> list[tuple[str, Tensor]]:
    """Return the parameters and buffers of that network."""
    network = network_of(module)
    return [*network.named_parameters(), *network.named_buffers()]


def _columns(module: TricksModule) -> dict[str, slice]:
    """Give each trainable parameter its place in a row, norms and biases last, whatever is decayed.

    So the parameters of a group of the optimizer stand side by side, but where layers learn at rates of
    their own.
    """
    last = norms_and_biases(module.tricks_subject)
    named = [(n, p) for n, p in network_of(module).named_parameters() if p.requires_grad]
    found: dict[str, slice] = {}
    at = 0
    for name, parameter in sorted(named, key=lambda pair: id(pair[1]) in last):
        found[name] = slice(at, at + parameter.numel())
        at += parameter.numel()
    return found


_OF_TORCH = frozenset(vars(nn.Module())) | {"p"}
"""What every module has, and the rate of a layer that draws."""


def _check_alike(modules: Sequence[TricksModule]) -> None:
    """Check that networks do the same with their tensors.

    Raises:
        Unfusible: if they may not.
    """
    first, *others = [dict(network_of(module).named_modules()) for module in modules]
    if len(first) < len(list(network_of(modules[0]).named_modules(remove_duplicate=False))):
        raise Unfusible("a layer has two names")  # of which `functional_call` puts back one
    for layer in first.values():
        if has_hooks(layer):
            raise Unfusible(f"a layer {type(layer).__name__} has hooks")
    for other in others:
        if list(first) != list(other):
            raise Unfusible("the networks have different layers")
        for name, layer in first.items():
            if difference := _difference(layer, other[name]):
                raise Unfusible(f"the networks differ in {name or 'their'} {difference}")
    shapes = [[(n, t.shape, t.dtype, t.requires_grad) for n, t in tensors_of(m)] for m in modules]
    if any(own != shapes[0] for own in shapes):
        raise Unfusible("the networks have tensors of different shapes")
    if len({dtype for _, _, dtype, learns in shapes[0] if learns}) > 1:
        raise Unfusible("the parameters are of several dtypes")


def _difference(one: nn.Module, other: nn.Module) -> str:
    """Say in what two layers differ beside their tensors; empty if in nothing."""
    if type_before_parametrizations(one) is not type_before_parametrizations(other):
        return f"({type(one).__name__}, {type(other).__name__})"
    names = (vars(one).keys() | vars(other).keys()) - _OF_TORCH
    if type(one) not in NOISES and "p" in vars(one):
        names |= {"p"}
    for name in sorted(names):
        if not _same(getattr(one, name, None), getattr(other, name, None)):
            return name
    return ""


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, FunctionType) and isinstance(other, FunctionType):
        alike = one.__code__ == other.__code__ and one.__defaults__ == other.__defaults__
        return one is other or (alike and not one.__closure__)
    try:
        return one is other or bool(one == other)
    except Exception:  # tensors, arrays, whatever users have: nothing is known of these
        raise Unfusible(f"a layer holds a {type(one).__name__} that cannot be compared") from None
