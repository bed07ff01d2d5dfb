"""Names of the attributes of studies and trials in Optuna's storage."""

from lightning_tricks import scores
from lightning_tricks.scores import PREFIX


def kept(name: str) -> str:
    """Return the name of an attribute of a study or a trial."""
    return f"{PREFIX}{name}"


OUTCOME = scores.OUTCOME
IDENTITY, ROLE = kept("identity"), kept("role")
LOSSES, STOP_AT = kept("losses"), kept("stop_at")
PAUSE_AFTER = kept("pause_after")
"""Trial attribute: the number of the epoch after which it pauses; absent or None if to the end."""
GROUP = kept("group")
"""Trial attribute: the number of the first trial of its group, and the group's size."""
PRIOR = kept("prior")
"""Study attribute: the effects expected before the first trial, if not the shipped ones."""
PLANNED = kept("planned")
"""Study attribute: the budget, and how many trials it affords."""
BASELINE, TESTS = kept("baseline"), kept("tests")
REFERENCES = ("yours", "baseline", "plain")
"""Roles of the first trials: the user's unchanged LightningModule, and two recipes."""
CHAMPION, MLFLOW_RUN = kept("champion"), kept("mlflow_run")
ENSEMBLE = "ensemble"
"""Alias of the ensemble of the champion's models over several seeds."""
SEED, ENTRY, PHASE, SEED_INDEX = kept("seed"), kept("entry"), kept("phase"), kept("seed_index")
"""Attributes of a part's trials: the seed, the recipe's name, the phase, and the seed index."""
SELECTION, REPORT = "selection", "report"
"""Phases of a verdict's trials: choose a recipe, then measure how good it is."""
RATES, COMPARISON = "rates", "comparison"
"""Phases of an ablation's trials: find each arm's learning rate, then compare the arms."""
VERDICT, ABLATION = "verdict", "ablation"
PARTS = (VERDICT, ABLATION)
"""Stages after a search. Each is a study of its own; its result is stored with the search."""
PART_OF, PART_RUNS = kept("part_of"), kept("part_runs")
"""The search that a part belongs to; and, stored with a search, the MLflow runs of its parts."""
UNWRITTEN = kept("unwritten")
"""Study attribute: the parts that MLflow may lack some of, because they were not closed there."""
REPORTED = kept("reported")
"""A digest of what the kept report was made of."""
COMMANDS, FUSE = kept("commands"), kept("group_size")
"""Commands that ran the study, in order; and its group size, if measured."""
