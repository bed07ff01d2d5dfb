"""Builds the anatomy of a network from the record of a run."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from lightning_tricks.surgery.anatomy import (
    Anatomy,
    Draw,
    Layer,
    Weight,
    modules_of,
    parameters_of,
)
from lightning_tricks.surgery.convolutions import CONVOLUTIONS
from lightning_tricks.surgery.dependence import axis_of_samples, one_sided, results
from lightning_tricks.surgery.factors import regular
from lightning_tricks.surgery.found_norms import are_apart, found_norms, mixed_norms, positions
from lightning_tricks.surgery.graph import ends, nodes_of, parameters_reached, tensors_in
from lightning_tricks.surgery.inputs import axes_of, outputs_of
from lightning_tricks.surgery.layers import ACTIVATIONS, DROPOUTS, known_layer
from lightning_tricks.surgery.products import channels_of, weight_of
from lightning_tricks.surgery.seen import Seen, Use
from lightning_tricks.surgery.teachers import copies
from lightning_tricks.surgery.unfit import compiled

RATES = ("p", "rate", "prob", "probability")
"""Names of attributes that hold the rate of a dropout function, besides those with `drop` in them."""


def build(network: nn.Module, seen: Seen, result: Any, inputs: Any = None, why: str = "") -> Anatomy:
    """Return the anatomy of a network.

    Args:
        network: the network that ran.
        seen: the record of the run; empty if it could not be watched.
        result: the output of the network, or the loss of a training step.
        inputs: the inputs of the network, if they are a tensor.
        why: why it could not be watched.
    """
    builder = _Builder(network, seen)
    layers = builder.layers(nodes_of(result))
    sided = one_sided(results(layers, seen, 4, 5))
    norms = tuple(found_norms(builder.modules, seen, sided))
    main = next(iter(tensors_in(result)), None)
    return Anatomy(
        layers=tuple(_with_positions(layer, seen, sided) for layer in layers),
        norms=norms,
        mixed=tuple(mixed_norms(builder.modules, norms)),
        runs=tuple(seen.calls),
        tables=tuple(builder.tables()),
        draws=tuple(builder.draws()),
        compiled=tuple(compiled(network)),
        copies=tuple(copies(network, parameters_reached(nodes_of(result)))),
        attends=seen.attends or any(isinstance(m, nn.MultiheadAttention) for m in network.modules()),
        outputs=outputs_of(main, layers),
        axes=axes_of(inputs, seen, layers),
        samples=axis_of_samples(results(layers, seen, 3)),
        watched=bool(seen.calls),
        why=why,
    )


class _Builder:
    """Makes the parts of an anatomy."""

    def __init__(self, network: nn.Module, seen: Seen) -> None:
        self.seen = seen
        self.modules, self.parameters = modules_of(network), parameters_of(network)
        self.canonical = {id(p): name for name, p in network.named_parameters()}

    def layers(self, roots: Sequence[Any]) -> list[Layer]:
        """Return the weighted layers in the order in which they run."""
        by_path: dict[str, list[Use]] = {}
        for use in self.seen.uses:
            by_path.setdefault(use.path, []).append(use)
        found = {path: self._layer(path, uses) for path, uses in by_path.items()}
        found = self._with_idle({path: layer for path, layer in found.items() if layer.weights})
        last = self._outputs(found, roots)
        shared = self._shared(found)
        return [
            replace(layer, output=layer.path in last, tied=layer.path in shared)
            for layer in found.values()
        ]

    def _layer(self, path: str, uses: Sequence[Use]) -> Layer:
        """Return the layer of a module that multiplies with weights."""
        module = self.modules[path]
        if (typed := known_layer(path, module)) is not None and not typed.called:
            return self._told(typed)
        weights: dict[str, Weight] = {}
        dims: int | None = None
        for use in uses:
            for name in use.names:
                shape = self.parameters[name].shape
                if len(shape) < 2 or name in weights:
                    continue
                weights[name] = weight_of(name, shape, use)
                if use.function in CONVOLUTIONS:
                    dims = CONVOLUTIONS[use.function][1]
        width = 0
        if weights:
            first = next(iter(weights.values()))
            shape = self.parameters[first.name].shape
            width = first.fans.outputs if dims is None else channels_of(shape, uses)
        layer = Layer(path, tuple(weights.values()), self._biases(path), width, dims)
        called = path in self.seen.calls and len(weights) == 1 and not list(_plain_children(module))
        called &= all(use.last for use in uses)
        kept = next((use.kept for use in uses if use.kept), "")
        return self._told(replace(layer, called=called and self._gives(layer), kept=kept))

    def _gives(self, layer: Layer) -> bool:
        """Tell whether a module returns one tensor, of the width of its layer."""
        output = self.seen.calls[layer.path].output
        if not isinstance(output, Tensor) or output.dim() < 2:
            return False
        return bool(output.shape[-1 if layer.dims is None else 1] == layer.width)

    def _told(self, layer: Layer) -> Layer:
        """Return a layer with `kept`, `trained` and `activation` filled in."""
        held = [self.parameters[weight.name] for weight in layer.weights]
        kept = layer.kept
        if any(".parametrizations." in f".{weight.name}" for weight in layer.weights):
            kept = "they are parametrized"
        elif any(not bool(parameter.any()) for parameter in held if not parameter.is_meta):
            kept = "they are zero on purpose"
        elif layer.dims is None and not all(
            regular(p.shape, weight.unit, weight.blocks)
            for p, weight in zip(held, layer.weights, strict=True)
        ):
            kept = "they are summed along several axes"
        trained = any(parameter.requires_grad for parameter in held)
        activation = "" if not layer.called else self._activation(layer.path)
        return replace(layer, kept=kept, trained=trained, activation=activation)

    def _activation(self, path: str) -> str:
        """Return the path of an activation that is the only user of a layer's outputs and runs once."""
        if path not in self.seen.calls:
            return ""
        takers = self.seen.takers.get(id(self.seen.calls[path].output), [])
        alone = len(takers) == 1 and isinstance(self.modules[takers[0]], ACTIVATIONS)
        return takers[0] if alone and self.seen.calls[takers[0]].count == 1 else ""

    def _with_idle(self, found: dict[str, Layer]) -> dict[str, Layer]:
        """Add the layers that did not run, each after the layer assigned before it."""
        order = list(found)
        known: set[int] = {id(self.modules[path]) for path in found}
        for path in found:
            if isinstance(self.modules[path], nn.MultiheadAttention):
                known |= {id(inside) for inside in self.modules[path].modules()}
        before = ""
        for path, module in self.modules.items():
            if id(module) in known:
                before = path if path in found else before
            elif (typed := known_layer(path, module)) is not None and not is_parametrized(module):
                known |= {id(inside) for inside in module.modules()}
                found[path] = self._told(replace(typed, ran=not self.seen.calls))
                order.insert(order.index(before) + 1 if before in order else len(order), path)
                before = path
        return {path: found[path] for path in order}

    def _outputs(self, found: Mapping[str, Layer], roots: Sequence[Any]) -> set[str]:
        """Return the layers with no other layer between them and the result."""
        owners: dict[Any, str] = {}
        for use in self.seen.uses:
            if use.path in found:
                owners |= dict.fromkeys(use.nodes, use.path)
        for path in found:  # operations after its product belong to the layer
            if path in self.seen.calls and found[path].called:
                owners |= dict.fromkeys(self.seen.calls[path].nodes, path)
        if last := set(ends(roots, owners, self.seen.derivatives)):
            return last
        ran = [layer.path for layer in found.values() if layer.ran]
        return set(ran[-1:])

    def _shared(self, found: Mapping[str, Layer]) -> set[str]:
        """Return the layers that share their weight."""
        users: dict[str, set[str]] = {}
        for layer in found.values():
            for weight in layer.weights:
                users.setdefault(self._name(weight.name), set()).add(layer.path)
        tables = {self._name(name) for name in self.tables()}
        return {
            layer.path
            for layer in found.values()
            for weight in layer.weights
            if len(users[self._name(weight.name)]) > 1 or self._name(weight.name) in tables
        }

    def _name(self, name: str) -> str:
        """Return the first name of a parameter."""
        return self.canonical[id(self.parameters[name])]

    def _biases(self, path: str) -> tuple[str, ...]:
        own = self.modules[path].named_parameters(recurse=False)
        return tuple(_join(path, name) for name, p in own if name.startswith("bias") and p.dim() == 1)

    def tables(self) -> list[str]:
        """Return the names of the lookup tables."""
        kinds = (nn.Embedding, nn.EmbeddingBag)
        typed = [_join(path, "weight") for path, m in self.modules.items() if isinstance(m, kinds)]
        return list(dict.fromkeys([*self.seen.tables, *typed]))

    def draws(self) -> Iterator[Draw]:
        """Walk the places that call a dropout function, with the attributes that hold their rates."""
        for path, rate in dict.fromkeys(self.seen.drops):
            module = self.modules[path]
            if (idle := self._idle_dropout(path, rate)) is not None:
                yield Draw(idle, "p", rate)
                continue
            names = [n for n, v in vars(module).items() if isinstance(v, float) and v == rate]
            named = [n for n in names if "drop" in n.lower()] or [n for n in names if n in RATES]
            yield Draw(path, named[0] if len(named) == 1 else "", rate)

    def _idle_dropout(self, path: str, rate: float) -> str | None:
        """Return the path of a dropout layer that never runs and from which a module takes its rate."""
        inside = (f"{path}." if path else "") + "{}"
        named = ((inside.format(name), m) for name, m in self.modules[path].named_modules())
        idle = ((at, m) for at, m in named if isinstance(m, DROPOUTS) and at not in self.seen.calls)
        return next((at for at, m in idle if m.p == rate), None)


def _with_positions(layer: Layer, seen: Seen, sided: bool) -> Layer:
    """Return a layer with `positions` and `apart` filled in."""
    if layer.dims is None:
        return layer
    shape = positions(layer.path, seen)
    apart = are_apart(shape, layer.dims, sided=sided)
    return replace(layer, positions=math.prod(shape), apart=apart)


def _plain_children(module: nn.Module) -> Iterator[nn.Module]:
    if not is_parametrized(module):
        yield from module.children()


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
