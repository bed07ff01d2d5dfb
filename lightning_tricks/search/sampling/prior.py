"""What is known of each kind's effect before a study begins: from other tasks, or other studies."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.search import keys
from lightning_tricks.search.optuna_internals import user_attrs_of
from lightning_tricks.search.promotion import is_paused
from lightning_tricks.search.sampling.effects import expected_effects
from lightning_tricks.search.sampling.features import Option
from lightning_tricks.search.sampling.given import given_recipe
from lightning_tricks.space.documents import read_yaml

Prior = Mapping[str, Mapping[str, float]]
"""The effect of each kind by stage, in standard deviations of a study's scores."""


@cache
def shipped() -> Prior:
    """Return the prior that the package ships; `prior.yaml` says where it comes from."""
    found: Prior = read_yaml(Path(__file__).with_name("prior.yaml"))
    return found


def prior_of(study: optuna.Study) -> dict[Option, float]:
    """Return the effects that a study's sampler expects before the first trial."""
    held: Prior = user_attrs_of(study).get(keys.PRIOR, shipped())
    return {(stage, kind): effect for stage, kinds in held.items() for kind, effect in kinds.items()}


def learned(studies: Sequence[optuna.Study]) -> dict[str, dict[str, float]]:
    """Return the effects that some studies found, as their mean."""
    found: dict[Option, list[float]] = {}
    for study in studies:
        prior = prior_of(study)
        effects = expected_effects(told(study), study.direction, prior)
        for option, effect in {**prior, **effects}.items():
            found.setdefault(option, []).append(effect)
    kinds: dict[str, dict[str, float]] = {}
    for (stage, kind), several in found.items():
        if "." not in stage and isinstance(kind, str):
            kinds.setdefault(stage, {})[kind] = round(sum(several) / len(several), 3)
    return kinds


def told(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials of a study that tell something about the effects."""
    known = (TrialState.COMPLETE, TrialState.PRUNED)
    trials = study.get_trials(deepcopy=False)
    return [t for t in trials if given_recipe(t) is None and (t.state in known or is_paused(t))]
