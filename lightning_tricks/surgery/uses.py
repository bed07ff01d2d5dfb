"""Records how a network uses its parameters while a batch passes through it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lightning_tricks.surgery.convolutions import CONVOLUTIONS, of_convolution
from lightning_tricks.surgery.factors import PRODUCTS, used_in
from lightning_tricks.surgery.graph import nodes_of
from lightning_tricks.surgery.seen import Call, Seen, Use
from lightning_tricks.surgery.torch_internals import DropoutLayer
from lightning_tricks.surgery.views import Views

_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
_CELLS = {"lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}
_DROPOUTS = {
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "alpha_dropout",
    "feature_alpha_dropout",
    "dropout_",
}
_ATTENTION = {"scaled_dot_product_attention", "multi_head_attention_forward"}


class _Recorder(TorchFunctionMode):
    """Notes each function that is called with a parameter of a network."""

    def __init__(self, network: nn.Module, seen: Seen) -> None:
        super().__init__()
        self.network, self.seen = network, seen
        self.views = Views(network)
        self.paths = {id(module): path for path, module in network.named_modules()}
        self.running: list[tuple[str, nn.Module]] = [("", network)]
        self.shares: set[int] = set()
        """Ids of softmax results."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if (note := _NOTES.get(name)) is not None:
            note(self, name, args, kwargs or {}, result)
        else:
            self.views.note(args, result)
        return result

    def begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Note that a module begins to run."""
        path = self.paths[id(module)]
        self.running.append((path, module))
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        call = self.seen.calls.setdefault(path, Call(path))
        call.inputs, call.count = given, call.count + 1
        for tensor in given:
            self.seen.takers.setdefault(id(tensor), []).append(path)
        self.seen.alive.extend(given)

    def end(self, module: nn.Module, args: Any, output: Any) -> None:
        """Note what a module returned."""
        del args
        path = self.paths[id(module)]
        while self.running and self.running.pop()[0] != path:
            pass
        self.seen.calls[path].output = output
        self.seen.calls[path].nodes += nodes_of(output)
        self.seen.alive.append(output)

    def multiply(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Note a product with a matrix."""
        if name == "linear" and len(args) < 2:
            args = (None, kwargs["weight"])
        use = used_in(self.views, name, args, kwargs)
        if use is None and name == "linear" and (found := self._made(args[1])):
            use = Use((found,), name, inputs=(1,), outputs=(0,))
        if use is not None:
            self._note(use, result)
        self.seen.attends |= bool({id(leaf) for leaf in tree_leaves(args)} & self.shares)

    def convolve(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Note a product with a kernel."""
        kernel = kwargs.get("weight", _at(args, 1))
        view = self.views.of(kernel)
        found = view.name if view is not None and view.in_order else self._made(kernel)
        if found:
            kept = "" if view is None else view.kept
            groups, stride = of_convolution(name, args, kwargs)
            self._note(Use((found,), name, kept=kept, groups=groups, stride=stride), result)

    def share(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Note the result of a softmax: multiplied with a matrix, it is attention."""
        del name, args, kwargs
        self.shares.add(id(result))
        self.seen.alive.append(result)

    def recur(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Note a step of a recurrent layer or of attention, which use several weights."""
        self.seen.attends |= name in _ATTENTION
        if names := self.views.names(tree_leaves((args, kwargs))):
            self._note(Use(tuple(names), name), result)

    def attend(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Note attention without weights of its own."""
        del name, result
        self.seen.attends = True
        rate = kwargs.get("dropout_p", _at(args, 4))
        if rate:
            self.seen.drops.append((self.running[-1][0], float(rate)))

    def look_up(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Note a lookup table."""
        del name, result
        self.seen.tables |= dict.fromkeys(self.views.names(tree_leaves((args, kwargs))))

    def derive(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Note derivatives, which a loss may hold."""
        del name, args, kwargs
        self.seen.derivatives += nodes_of(result)
        self.seen.alive.append(result)

    def drop(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Note a call of a dropout function."""
        if id(_at(args, 0)) in self.shares:
            self.share(name, args, kwargs, result)
        self.views.note(args, result, masks=True)
        path, module = self.running[-1]
        rate = kwargs.get("p", 0.5 if len(args) < 2 else args[1])
        training = kwargs.get("training", True if len(args) < 3 else args[2])
        if training and rate and not isinstance(module, DropoutLayer):
            self.seen.drops.append((path, float(rate)))

    def _note(self, use: Use, result: Any) -> None:
        use.path, use.nodes = self.running[-1][0], nodes_of(result)
        self.seen.uses.append(use)

    def _made(self, weight: Any) -> str:
        """Return the name of the parameter that a computed weight is made of.

        A weight that is made of several, such as a mean and a deviation, has no name.
        """
        if not isinstance(weight, Tensor):
            return ""
        path, module = self.running[-1]
        own = [
            name
            for name, parameter in module.named_parameters()
            if parameter.shape == weight.shape
            and ("." not in name or name.startswith("parametrizations."))
        ]
        several = len(own) > 1 and not any(name.startswith("parametrizations.") for name in own)
        return "" if several or not own else ".".join(filter(None, (path, own[-1])))


def _at(args: tuple[Any, ...], place: int) -> Any:
    return args[place] if len(args) > place else None


_NOTES: dict[str, Callable[..., None]] = {
    **dict.fromkeys(PRODUCTS, _Recorder.multiply),
    **dict.fromkeys(CONVOLUTIONS, _Recorder.convolve),
    **dict.fromkeys((*_RECURRENT, *_CELLS, "multi_head_attention_forward"), _Recorder.recur),
    "scaled_dot_product_attention": _Recorder.attend,
    **dict.fromkeys(("embedding", "embedding_bag"), _Recorder.look_up),
    **dict.fromkeys(_DROPOUTS, _Recorder.drop),
    "softmax": _Recorder.share,
    "grad": _Recorder.derive,
}


@contextmanager
def recording(network: nn.Module) -> Iterator[Seen]:
    """Record what a network does in this context."""
    recorder = _Recorder(network, Seen())
    handles = []
    for module in network.modules():
        if isinstance(module, torch.jit.ScriptModule):  # it takes no such hooks
            continue
        handles.append(module.register_forward_pre_hook(recorder.begin, with_kwargs=True))
        handles.append(module.register_forward_hook(recorder.end, always_call=True))
    try:
        with recorder:
            yield recorder.seen
    finally:
        for handle in handles:
            handle.remove()
