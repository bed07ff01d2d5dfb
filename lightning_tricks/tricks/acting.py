"""Which stages of a recipe act on layers, weights, batches, or in our own forward."""

from collections.abc import Callable
from functools import cache

from lightning_tricks.space.trick import Trick, stages


@cache
def layer_stages(of: type[Trick]) -> tuple[str, ...]:
    """Return the stages that change the layers of a network."""
    return _stages_where(of, lambda trick: trick.changes_layers)


@cache
def weight_stages(of: type[Trick]) -> tuple[str, ...]:
    """Return the stages that draw weights or freeze them."""
    return _stages_where(of, lambda trick: trick.changes_weights)


@cache
def batch_stages(of: type[Trick]) -> tuple[str, ...]:
    """Return the stages that change the contents of a batch."""
    return _stages_where(of, lambda trick: trick.changes_batch)


@cache
def forward_stages(of: type[Trick]) -> tuple[str, ...]:
    """Return the stages that act in the forward of this package's modules."""
    return _stages_where(of, lambda trick: trick.needs_forward)


def _stages_where(of: type[Trick], holds: Callable[[type[Trick]], bool]) -> tuple[str, ...]:
    return tuple(stage for stage, kinds in stages(of).items() if any(map(holds, kinds.values())))
