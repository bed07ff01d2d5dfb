"""The kinds that a search still holds: each is tried, and what does not fit is left out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lightning_tricks.errors import InputError
from lightning_tricks.space.space import Space
from lightning_tricks.space.trick import stages
from lightning_tricks.task.task import Task
from lightning_tricks.tricks.acting import forward_stages, layer_stages, weight_stages
from lightning_tricks.tricks.recipe import Tricks


@dataclass
class KindsLeft:
    """A space that loses the kinds that do not fit a task."""

    task: Task
    space: Space[Any]
    """The space of what is left."""
    _left_out: dict[str, list[str]] = field(default_factory=dict)
    _reasons: list[str] = field(default_factory=list)

    def of(self, stage: str) -> list[Any]:
        """Return the kinds that are left of a stage."""
        return list(self.space.domains[stage].extremes())

    @property
    def baseline(self) -> Tricks:
        """The recipe of the space that is nearest to the task's baseline."""
        nearest: Tricks = self.space.nearest(self.task.reference())
        return nearest

    def notes(self) -> Iterator[str]:
        """Yield the line that says what was left out, and why."""
        if self._left_out:
            kinds = "; ".join(f"{stage} {', '.join(out)}" for stage, out in self._left_out.items())
            reasons = "; ".join(dict.fromkeys(self._reasons))
            yield f"left out of the search: {kinds} ({reasons})"

    def try_each(self, stage: str, attempt: Callable[[Tricks], Any]) -> None:
        """Leave out the kinds of a stage that an attempt refuses.

        Raises:
            InputError: if it refuses all kinds.
        """
        kinds = self.of(stage)
        if len(kinds) == 1 and stages(self.task.tricks)[stage][kinds[0]].neutral:
            return  # off in all trials
        refused: dict[str, str] = {}
        for kind in kinds:
            try:
                attempt(self.recipe_with(stage, kind))
            except InputError as error:
                refused[kind] = str(error)
        if not refused:
            return
        kind, reason = next(iter(refused.items()))
        if len(refused) == len(kinds):
            about = reason.startswith((stage, repr(kind)))  # not about another stage
            raise InputError(f"{reason}; leave {kind!r} out of {stage}" if about else reason)
        self.leave_out(stage, list(refused), reason)

    def leave_out(self, stage: str, kinds: list[str], reason: str) -> None:
        """Remove some kinds of a stage, but not all."""
        if kinds:
            self.space = self.space.without(stage, kinds)
            self._left_out.setdefault(stage, []).extend(kinds)
            self._reasons.append(reason)

    def keep_only(self, stage: str, kind: str, reason: str) -> None:
        """Pin a stage to a kind, which the space need not hold, and leave out all others."""
        self._left_out[stage] = [other for other in self.of(stage) if other != kind]
        self._reasons.append(reason)
        self.space = self.space.pin({stage: kind})

    def recipe_with(self, stage: str, kind: Any) -> Tricks:
        """Return the baseline with a kind of a stage. Other stages that may not fit are off."""
        recipe = self.baseline.model_dump()
        filtered = (*forward_stages(self.task.tricks), *layer_stages(self.task.tricks))
        if stage in (*filtered, *weight_stages(self.task.tricks)):
            off = {name: {"kind": self.off(name)} for name in filtered}
            if stage == "dropout":  # its places depend on the norms
                del off["normalization"]
            recipe |= off
        return self.task.tricks.parse({**recipe, stage: {"kind": kind}})

    def off(self, stage: str) -> str:
        """Return the kind of a stage that changes the least in this space."""
        kinds = self.of(stage)
        options = stages(self.task.tricks)[stage]
        neutral = next(kind for kind, option in options.items() if option.neutral)
        untouched = "own" in kinds and getattr(self.baseline, stage).kind == "own"
        return "own" if untouched or (neutral not in kinds and "own" in kinds) else neutral
