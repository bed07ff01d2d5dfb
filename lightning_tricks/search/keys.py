"""The names under which things are kept with a study and its trials in Optuna's storage."""

from lightning_tricks import scores
from lightning_tricks.scores import PREFIX


def kept(name: str) -> str:
    """Return the name under which something is kept with a study or a trial."""
    return f"{PREFIX}{name}"


OUTCOME = scores.OUTCOME
IDENTITY, ROLE = kept("identity"), kept("role")
LOSSES, STOP_AT = kept("losses"), kept("stop_at")
GROUP = kept("group")
"""What a trial that was drawn for a group holds: the number of its first, and how many there are."""
BASELINE, TESTS = kept("baseline"), kept("tests")
REFERENCES = ("yours", "baseline", "plain")
"""Roles of the trials that come first: the user's LightningModule as it is, and two recipes."""
CHAMPION, MLFLOW_RUN = kept("champion"), kept("mlflow_run")
ENSEMBLE = "ensemble"
"""Alias of the champion's models of several seeds, together."""
SEED, ENTRY, PHASE, SEED_INDEX = kept("seed"), kept("entry"), kept("phase"), kept("seed_index")
"""What a trial of a part holds: its seed, of which recipe it is, what for, the index of its seed."""
SELECTION, REPORT = "selection", "report"
"""What a verdict's trials are for: to choose, and to say how good what was chosen is."""
RATES, COMPARISON = "rates", "comparison"
"""What an ablation's trials are for: to find an arm's learning rate, and to compare arms."""
VERDICT, ABLATION = "verdict", "ablation"
PARTS = (VERDICT, ABLATION)
"""What follows a search: each is a study beside it, and what it found is kept with the search."""
PART_OF, PART_RUNS = kept("part_of"), kept("part_runs")
"""What a part holds: whose it is; and a search, of its parts: their runs in MLflow."""
COMMANDS, FUSE = kept("commands"), kept("group_size")
"""That made the study, in their order, and how many trainings it does as one, if that was measured."""
