"""The networks of several trials as one: stacked tensors, one forward and one backward for all."""

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

    All trainable numbers of a network are one row of a matrix. Its own parameters and buffers become
    views of the stack, so that changing a network changes its part of the stack.

    Args:
        modules: modules on one device, with fitted scaling.
        draws: the random generator of each.

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
        """Columns of each trainable parameter in a row, by name."""
        self._gather(modules)

    def _gather(self, modules: Sequence[TricksModule]) -> None:
        """Stack the tensors of the networks, and make their own tensors views of the stack."""
        found = [dict(tensors_of(module)) for module in modules]
        rows = [torch.cat([own[name].detach().flatten() for name in self.columns]) for own in found]
        self.weights = torch.stack(rows)
        """(K, P), all trainable numbers."""
        self.gradients = torch.zeros_like(self.weights)
        """(K, P), gradients of the last backward pass."""
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
        """Keep some of the networks; the others get their own copies of their tensors.

        Args:
            places: the places of the networks that stay.
            modules: all modules.
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
        """Switch each layer to the mode, training or evaluation, that it has in a module."""
        modes = {name: layer.training for name, layer in module.named_modules()}
        for name, layer in self.network.named_modules():
            layer.training = modes.get(name, module.training)

    def outputs(self, inputs: Tensor, *, shared: bool = False) -> Any:
        """Pass inputs through all networks.

        Args:
            inputs: the inputs of each network, (K, N, …), or shared inputs, (N, …).
            shared: whether all have the same inputs.

        Returns:
            The outputs, with a first dimension for the networks.
        """
        tensors = {**self._leaves, **self.held}
        dims = (0, None if shared else 0)
        return torch.vmap(self._one, in_dims=dims, randomness="error")(tensors, inputs)

    def _one(self, tensors: dict[str, Tensor], inputs: Tensor) -> Any:
        return functional_call(self.network, tensors, (inputs,))

    def backward(self, losses: Tensor) -> None:
        """Put the gradient of each network's loss into its row of `gradients`.

        Args:
            losses: the losses, (K,).

        Raises:
            Unfusible: if a parameter gets no gradient.
        """
        # Each loss depends only on its own row, so the sum gives each its gradient: NaNs stay in a row.
        found = torch.autograd.grad(losses.sum(), list(self._leaves.values()), allow_unused=True)
        if any(gradient is None for gradient in found):
            raise Unfusible("some parameters get no gradient in a step")
        rows = [gradient.reshape(len(self.weights), -1) for gradient in found]
        torch.cat(rows, 1, out=self.gradients)

    def state(self) -> dict[str, Tensor]:
        """Return a copy of the buffers and frozen parameters, which a forward pass may change."""
        return {name: held.clone() for name, held in self.held.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Undo what forward passes changed since `state()`."""
        for name, held in self.held.items():
            held.copy_(state[name])


class _WeightNorm(nn.Module):
    """w = g·v/‖v‖ for each unit, because torch's own kernel takes only one network."""

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
    """Gives the padding no gradient; torch's own embedding forgets the padding inside `vmap`."""

    def forward(self, indices: Tensor) -> Tensor:
        assert self.padding_idx is not None  # else torch's own is used
        learns = torch.arange(self.num_embeddings, device=indices.device).ne(self.padding_idx)
        weight = torch.where(learns[:, None], self.weight, self.weight.detach())
        return functional.embedding(indices, weight)


def network_of(module: TricksModule, copied: bool = False) -> nn.Module:
    """Return the parts of a module that a forward pass uses, under the module's names."""
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
    """Return the columns of each trainable parameter in a row; norms and biases are always last.

    So the parameters of an optimizer group are adjacent, except if layers have their own learning rates.
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
"""Attributes of every module, and the rate of a layer that draws."""


def _check_alike(modules: Sequence[TricksModule]) -> None:
    """Check that networks compute the same from their tensors.

    Raises:
        Unfusible: if they might not.
    """
    first, *others = [dict(network_of(module).named_modules()) for module in modules]
    if len(first) < len(list(network_of(modules[0]).named_modules(remove_duplicate=False))):
        raise Unfusible("a layer has two names")  # `functional_call` would restore only one
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
        raise Unfusible("the parameters have several dtypes")


def _difference(one: nn.Module, other: nn.Module) -> str:
    """Return what differs between two layers, apart from tensors; empty if nothing."""
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
    except Exception:  # tensors, arrays and other objects of users
        raise Unfusible(f"a layer holds a {type(one).__name__} that cannot be compared") from None
