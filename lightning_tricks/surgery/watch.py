"""Watches a network run."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks.surgery.anatomy import Anatomy, describe, held_anatomy
from lightning_tricks.surgery.build import build
from lightning_tricks.surgery.seen import Seen
from lightning_tricks.surgery.torch_internals import Convolution
from lightning_tricks.surgery.uses import recording

MOST_GUESSES = 8
"""Number of guessed inputs to try if none are given."""


def anatomy_of(network: nn.Module) -> Anatomy:
    """Return the anatomy stored in a network; if there is none, watch it on inputs that fit.

    These are a LightningModule's `example_input_array`, or inputs of a shape that a first layer takes.
    """
    held = held_anatomy(network)
    if held is None:
        example = getattr(network, "example_input_array", None)
        guesses = [example] if isinstance(example, Tensor) else _guesses(network)
        held = watch(copy.deepcopy(network), guesses)
        describe(network, held)
    return held


def watch(network: nn.Module, inputs: Sequence[Any]) -> Anatomy:
    """Return the anatomy of a network, from the first inputs that it takes.

    The random state is not changed, but the network may be: pass a copy or one made for this.

    Args:
        network: a module that takes one tensor.
        inputs: batches to try in turn.
    """
    why = "no inputs are known"
    for batch in inputs:
        for training in (True, False):
            network.train(training)
            try:
                with without_trace(), recording(network) as seen:
                    result = network(batch)
                return build(network, seen, result, batch)
            except Exception as error:  # the user's code may raise anything
                why = f"{type(error).__name__}: {error}"
    return build(network, Seen(), None, None, why)


@contextmanager
def without_trace() -> Iterator[None]:
    """Keep the caller's random state, and suppress warnings and compilation."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


def _guesses(network: nn.Module) -> list[Tensor]:
    """Return random inputs of the shapes that the first few layers take."""
    shapes = dict.fromkeys(shape for module in network.modules() for shape in _shapes(module))
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    with torch.random.fork_rng():
        return [
            torch.zeros(shape, dtype=torch.long) if tokens else torch.randn(shape, dtype=dtype)
            for tokens, shape in list(shapes)[:MOST_GUESSES]
        ]


def _shapes(module: nn.Module) -> Iterator[tuple[bool, tuple[int, ...]]]:
    """Walk the input shapes that a layer may take, each with whether it is of tokens."""
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        yield True, (2, 8)
    elif isinstance(module, nn.Linear):
        yield False, (2, module.in_features)
    elif isinstance(module, nn.RNNBase):
        yield False, (2, 8, module.input_size)
    elif isinstance(module, Convolution):
        for side in (32, 64, 224):
            yield False, (2, module.in_channels, *(side for _ in module.kernel_size))
    else:  # unknown class: either side of a matrix may be the inputs' width
        for parameter in module.parameters(recurse=False):
            for side in parameter.shape if parameter.dim() == 2 else ():
                yield False, (2, side)
