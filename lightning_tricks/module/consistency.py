"""Checks that the parts of a recipe go together, and a warning if trained weights would be lost."""

import warnings

from torch import nn

from lightning_tricks.errors import InputError
from lightning_tricks.surgery.pretrained import learned_norm
from lightning_tricks.tricks.optimizers.own import OwnOptimizer
from lightning_tricks.tricks.recipe import Tricks
from lightning_tricks.tricks.schedules import OwnSchedule


def check_own(tricks: Tricks) -> None:
    """Check that the kind 'own' is set for both optimizer and schedule, and weight decay is off then.

    Raises:
        InputError: if a trick would act on nothing next to the module's own optimizer.
    """
    own = isinstance(tricks.optimizer, OwnOptimizer)
    if own != isinstance(tricks.schedule, OwnSchedule):
        raise InputError(
            "optimizer and schedule must both be 'own', or neither "
            f"(got {tricks.optimizer.kind!r} and {tricks.schedule.kind!r})"
        )
    if own and not tricks.weight_decay.neutral:
        raise InputError(
            f"weight_decay {tricks.weight_decay.kind!r} would act on nothing: the optimizer 'own' has "
            "a weight decay of its own, so set weight_decay to 'none'"
        )


def warn_of_redrawn_weights(tricks: Tricks, module: nn.Module) -> None:
    """Warn if a recipe is about to discard trained weights."""
    learned = learned_norm(module)
    losses = [
        f"initialization {tricks.initialization.kind!r} draws new weights"
        * (tricks.initialization.kind not in ("keep", "torch")),
        f"normalization {tricks.normalization.kind!r} takes its norms out"
        * (tricks.normalization.kind != "own"),
    ]
    if learned and any(losses):
        warnings.warn(
            f"the network was trained before ({learned} has learned), and "
            f"{' and '.join(loss for loss in losses if loss)}: to keep what it learned, start from "
            "Tricks.fine_tuning()",
            stacklevel=4,
        )
