"""Whether the parts of a recipe go together, and what of a trained network it would lose."""

import warnings

from torch import nn

from lightning_tricks.errors import InputError
from lightning_tricks.surgery.pretrained import learned_norm
from lightning_tricks.tricks.optimizers.own import OwnOptimizer
from lightning_tricks.tricks.recipe import Tricks
from lightning_tricks.tricks.schedules import OwnSchedule


def check_own(tricks: Tricks) -> None:
    """Check that a module's own optimizer comes with all that belongs to it.

    Raises:
        InputError: if a trick beside it would act on nothing.
    """
    own = isinstance(tricks.optimizer, OwnOptimizer)
    if own != isinstance(tricks.schedule, OwnSchedule):
        raise InputError(
            "optimizer and schedule must both be 'own', or neither "
            f"(got {tricks.optimizer.kind!r} and {tricks.schedule.kind!r})"
        )
    if own and not tricks.weight_decay.neutral:
        raise InputError(
            f"weight_decay {tricks.weight_decay.kind!r} would act on nothing beside the optimizer "
            "'own', which has its own: set weight_decay to 'none'"
        )


def warn_of_redrawn_weights(tricks: Tricks, module: nn.Module) -> None:
    """Warn where weights that were trained before are about to be lost."""
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
