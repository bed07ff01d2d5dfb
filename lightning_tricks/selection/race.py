"""A race of a few records over seeds: who is clearly worse runs no further."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lightning_tricks.selection.intervals import chance

ERROR = 0.05
"""How often a record is taken for worse that is as good as the best: in all looks of a race together
where records are dropped, and in each comparison at its end."""
FIRST = 3
"""So many seeds are run before any is dropped."""


@dataclass
class Race:
    """Scores of some records over the same seeds, seed by seed.

    After each seed the best mean is compared with each other record by the one-sided paired t-test; who
    is worse with an error of 5 %, shared out evenly over all comparisons that there may be (Bonferroni),
    is dropped, but for the reference: whether the best beats that is asked once, at the end. There may
    be a second round for those that tie then, in which nobody is dropped.

    Args:
        names: of the records.
        seeds: how many there are to be, in the first round.
        maximize: whether more is better.
        reference: the record that the best is to beat.
    """

    names: Sequence[str]
    seeds: int
    maximize: bool = True
    reference: str = "baseline"
    scores: dict[str, list[float]] = field(init=False)
    """Of each record, seed by seed; those of a record that was dropped end there."""
    dropped: list[str] = field(default_factory=list)
    once_more: bool = False
    """Whether it is in its second round."""

    def __post_init__(self) -> None:
        self.scores = {name: [] for name in self.names}

    @property
    def running(self) -> list[str]:
        """The records that were not dropped."""
        return [name for name in self.names if name not in self.dropped]

    @property
    def spent(self) -> int:
        """How many trainings it took so far."""
        return sum(len(scores) for scores in self.scores.values())

    @property
    def best(self) -> str:
        """The record of the best mean among those that run."""
        return max(self.running, key=lambda name: sum(self._signed(name)))

    @property
    def error(self) -> float:
        """Of one comparison."""
        looks = max(self.seeds - FIRST + 1, 1)
        return ERROR / max(looks * (len(self.names) - 1), 1)

    def add(self, scores: Mapping[str, float]) -> list[str]:
        """Take the scores of one more seed; return who is dropped by that, or has none."""
        failed = [name for name in self.running if name not in scores]
        self.dropped += failed
        for name in self.running:
            self.scores[name].append(scores[name])
        if self.once_more or len(self.scores[self.best]) < FIRST:
            return failed
        rivals = [name for name in self.running if name not in (self.best, self.reference)]
        gone = [name for name in rivals if self.worse(name, self.error)]
        self.dropped += gone
        return failed + gone

    def second_round(self, budget: int) -> int:
        """Let only those go on that tie with the best, and the reference; return with how many seeds.

        Args:
            budget: so many trainings the race may take, those of the first round included.
        """
        tied = self.tied()
        contenders = [n for n in self.running if n in tied or n == self.reference]
        seeds = max(budget - self.spent, 0) // len(contenders) if len(tied) > 1 else 0
        if seeds:
            self.once_more = True
            self.dropped += [name for name in self.running if name not in contenders]
        return seeds

    def worse(self, name: str, error: float) -> bool:
        """Tell whether a record is worse than the best, with some chance of an error."""
        return chance(self._signed(self.best), self._signed(name)) < error

    def tied(self) -> list[str]:
        """Return the best record, and those that cannot be told apart from it.

        Each is compared with an error of 5 % of its own: to be found worse must not be too hard, since
        who is not worse may become the champion by being simple.
        """
        return [n for n in self.running if n == self.best or not self.worse(n, ERROR)]

    def beats_reference(self) -> bool:
        """Tell whether the best, of however many it is that, is clearly better than the reference."""
        failed = self.reference in self.dropped
        return failed or self.worse(self.reference, ERROR / max(len(self.names) - 1, 1))

    def _signed(self, name: str) -> list[float]:
        return [score if self.maximize else -score for score in self.scores[name]]
