"""Which stages made a difference in a search: Optuna's importance, with intervals."""

import random
import statistics
import warnings
from collections.abc import Sequence

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState, create_trial

from lightning_tricks.search.sampling.given import given_recipe
from lightning_tricks.search.studies import unannounced

RESAMPLES = 40
ENOUGH = 30
"""Fewest complete trials whose importances the report shows: those of fewer mean little."""


def importances(study: optuna.Study) -> dict[str, tuple[float, float, float]]:
    """Return the importance of each stage with bounds, the most important first.

    It is that of PED-ANOVA (Watanabe et al., 2023) over resamples of the complete trials: their median,
    and bounds that leave out 2.5% of them at each side. The importance over the trials themselves would
    not do: a resample holds some trials twice, so its values are systematically other ones.

    Args:
        study: the search.
    """
    complete = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    trials = [_bare(trial) for trial in complete if given_recipe(trial) is None]
    if len({t.value for t in trials}) < 2:
        return {}
    generator = random.Random(0)
    with unannounced():
        draws = [_evaluate(study, generator.choices(trials, k=len(trials))) for _ in range(RESAMPLES)]
    found = {}
    for name in {name: None for draw in draws for name in draw}:
        values = sorted(draw.get(name, 0.0) for draw in draws)
        middle = statistics.median(values)
        found[name] = (middle, values[RESAMPLES // 40], values[-1 - RESAMPLES // 40])
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def _bare(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial with what its importance needs alone: resamples copy all that it holds."""
    return create_trial(value=trial.value, params=trial.params, distributions=trial.distributions)


def _evaluate(study: optuna.Study, trials: Sequence[FrozenTrial]) -> dict[str, float]:
    copied = optuna.create_study(direction=study.direction)
    copied.add_trials(trials)
    stages = sorted({name for trial in trials for name in trial.params if "." not in name})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that trials are few is said in the report
        try:
            return optuna.importance.get_param_importances(
                copied, evaluator=PedAnovaImportanceEvaluator(), params=stages
            )
        except (ValueError, RuntimeError):  # all scores are the same, say
            return {}
