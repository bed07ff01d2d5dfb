"""Which record of a race becomes the champion, and why."""

from collections.abc import Mapping
from dataclasses import dataclass

from lightning_tricks.selection.race import Race
from lightning_tricks.tricks.record import Tricks


@dataclass(frozen=True)
class Champion:
    """The champion of a race, and why it is."""

    name: str
    better_than_baseline: bool
    """Whether the best could be told apart from the baseline."""
    tied: tuple[str, ...]
    """The records that could not be told apart from the best, itself included."""
    why: str
    """In a sentence."""


def choose(race: Race, records: Mapping[str, Tricks], seconds: Mapping[str, float]) -> Champion:
    """Return the champion of a race.

    It is the best mean if that is clearly better than the baseline: by the paired t-test, with an error
    of 5 % shared out over all records that may be the best. Otherwise it is the simplest of those that
    cannot be told apart from the best: with the fewest stages that are on, of equals the one that takes
    least time.

    Args:
        race: which has been run.
        records: by the names of the race, of which one is `baseline`.
        seconds: that a training takes, by name.
    """
    tied, best = tuple(race.tied()), race.best
    by = f"by the {len(race.scores[best])} seeds that choose"
    if race.beats_reference():
        best_of = f"the best of {len(race.names)} records and clearly better than the baseline"
        why = f"{by}, {best_of}"
        return Champion(best, True, tied, why)

    def cost(name: str) -> tuple[int, float]:
        return simplicity(records[name]), seconds[name]

    simplest = min(tied, key=cost)
    why = (
        "the best mean of all"
        if simplest == best
        else f"the simplest of {len(tied)} that tie with the best"
    )
    if others := len(race.names) - 1:
        none = "the other is not" if others == 1 else f"none of the other {others} is"
        why += f"; {by}, {none} clearly better than the baseline"
    return Champion(simplest, False, tied, why)


def simplicity(record: Tricks) -> int:
    """Return the number of stages that are on: fewer is simpler."""
    return len(record.differences(type(record).plain()))
