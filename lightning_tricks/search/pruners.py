"""Pruners: they stop unpromising trials early."""

import math
from collections.abc import Callable, Mapping
from functools import partial

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.search.optuna_internals import view
from lightning_tricks.search.sampling.evidence import LATEST

PAUSE_AFTER = 6
"""A trial pauses after its epochs divided by this."""


def warmup_epochs(epochs: int) -> int:
    """Return the number of first epochs without pruning: a third of the budget.

    Warm-up, cosine decay and dropout start slowly and catch up. A pruner that compares early would
    stop exactly the good tricks.
    """
    return math.ceil(epochs / 3)


def prunes(study: optuna.Study) -> bool:
    """Return whether a study's pruner ever stops a trial."""
    return not isinstance(study.pruner, NopPruner)


class _LatestPruner(BasePruner):
    """Compare only with the latest trials, so that the cost of a report stays constant."""

    def __init__(self, pruner: BasePruner, warmup_epochs: int) -> None:
        self._pruner, self._spared = pruner, warmup_epochs

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        if trial.last_step is None or trial.last_step < self._spared:
            return False

        def latest() -> list[FrozenTrial]:
            return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))[-LATEST:]

        return self._pruner.prune(view(study, latest), trial)


def _median(epochs: int) -> BasePruner:
    warmup = warmup_epochs(epochs)
    median = optuna.pruners.MedianPruner(n_startup_trials=8, n_warmup_steps=warmup, n_min_trials=5)
    return _LatestPruner(median, warmup)


def _halving(epochs: int) -> BasePruner:
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=warmup_epochs(epochs), reduction_factor=2)


class _FreshPruner(BasePruner):
    """Make a new pruner for each call, so that several threads may call it at the same time.

    Hyperband makes its brackets on the first call. Its state is all in the storage.
    """

    def __init__(self, make: Callable[[], BasePruner]) -> None:
        self._make = make

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return self._make().prune(study, trial)


def _hyperband(epochs: int) -> BasePruner:
    return _FreshPruner(
        partial(
            optuna.pruners.HyperbandPruner,
            min_resource=warmup_epochs(epochs),
            max_resource=epochs,
            reduction_factor=2,
        )
    )


class Pausing(BasePruner):
    """Pause trials after a sixth of their epochs; one in six goes on (see `promotion`).

    The coordinator does this, because Optuna cannot resume a trial. For Optuna's own `should_prune`,
    it is the median pruner.

    Args:
        epochs: the full budget of a trial.
    """

    def __init__(self, epochs: int) -> None:
        self._median = _median(epochs)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return self._median.prune(study, trial)


def rung_of(study: optuna.Study, epochs: int) -> int | None:
    """Return the number of the epoch after which a study's trials pause; None if they do not.

    Args:
        study: the study.
        epochs: the full budget of a trial. If it is small, trials do not pause.
    """
    after = max(round(epochs / PAUSE_AFTER), 1)
    return after - 1 if isinstance(study.pruner, Pausing) and 2 * after < epochs else None


def _none(epochs: int) -> BasePruner:
    del epochs
    return optuna.pruners.NopPruner()


PRUNERS: Mapping[str, Callable[[int], BasePruner]] = {
    "pause": Pausing,
    "median": _median,
    "halving": _halving,
    "hyperband": _hyperband,
    "none": _none,
}
