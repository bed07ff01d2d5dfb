"""Optimizer steps for the rows of a stack: one call of a formula for all members that use it."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_tricks.fusion.stack import Stack
from lightning_tricks.space.trick import Trick
from lightning_tricks.tricks.clipping import (
    NoClipping,
    NormClipping,
    UnitClipping,
    norm_factor,
    unit_factor,
)
from lightning_tricks.tricks.optimizers.formula import FormulaTrick

CACHED_NUMBERS = 2**15
"""Numbers per call of a formula on a CPU; more would not stay in the cache between its operations."""


class Penalty(NamedTuple):
    """The penalties and decay on some columns of a row."""

    columns: slice
    l2: float = 0.0
    l1: float = 0.0
    decoupled: float = 0.0


class RowOptimizer(Optimizer):
    """Holds the learning rate of a member and the state of its formula; `Rows` takes the steps.

    Args:
        row: the member's trainable numbers.
        trick: the formula.
        penalties: the penalties on parts of the row.
    """

    def __init__(self, row: Tensor, trick: FormulaTrick, penalties: Sequence[Penalty]) -> None:
        super().__init__([row], {"lr": trick.lr})
        self.row, self.trick, self.penalties = row, trick, list(penalties)
        self.steps = 0

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        rate: float = self.param_groups[0]["lr"]
        return rate

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps = state_dict["steps"]
        super().load_state_dict({name: state_dict[name] for name in ("state", "param_groups")})


class Rows:
    """The rows of members with one formula; its numbers may differ between members.

    Args:
        stack: the stack of all members.
        places: the adjacent places of these members.
        optimizers: the optimizers of these members.
        several: whether there could be more than one such member. Then numbers are tensors, even for
            one member: their last bit may differ, and a trial must not depend on the other members.
    """

    def __init__(
        self, stack: Stack, places: slice, optimizers: Sequence[RowOptimizer], several: bool
    ) -> None:
        self.optimizers, self.several = list(optimizers), several
        self.weights, self.gradients = stack.weights.detach()[places], stack.gradients[places]
        self.trick = self._stacked([one.trick for one in optimizers])
        self.parts = [self._part(columns) for columns in _parts([one.penalties for one in optimizers])]
        self.state: dict[str, Any] = {}
        states = [one.state[one.row] for one in optimizers]
        for name, value in states[0].items():
            tensors = isinstance(value, Tensor)
            self.state[name] = torch.stack([s[name] for s in states]) if tensors else value

    def _part(self, columns: slice) -> tuple[slice, list[Any]]:
        """Return the coefficients on columns: l2, l1 and decoupled; None if no member has one."""
        found: list[Any] = []
        for name in ("l2", "l1", "decoupled"):
            held = [_coefficient(one.penalties, columns, name) for one in self.optimizers]
            found.append(self._number(held) if any(held) else None)
        return columns, found

    def step(self) -> None:
        """Take a step with the gradients of the rows."""
        lr = self._number([one.lr for one in self.optimizers])
        for columns, (l2, l1, _) in self.parts:
            if l2 is not None:
                self.gradients[:, columns] += l2 * self.weights[:, columns]
            if l1 is not None:
                self.gradients[:, columns] += l1 * self.weights[:, columns].sign()
        step = self.trick.update(self.gradients, self.state, lr)
        for columns, (_, _, decoupled) in self.parts:
            if decoupled is not None:
                self.weights[:, columns] *= 1 - lr * decoupled
        self.weights += step
        for one in self.optimizers:
            one.steps += 1

    def _stacked(self, tricks: Sequence[FormulaTrick]) -> FormulaTrick:
        """Return one trick that holds the numbers of several as columns."""
        if not self.several:
            return tricks[0]
        fields = {
            name: self._number([getattr(trick, name) for trick in tricks])
            if isinstance(value, float)
            else value
            for name, value in tricks[0]
        }
        return type(tricks[0]).model_construct(**fields)

    def _number(self, values: Sequence[float]) -> Any:
        """Return the numbers of members as a column, (K, 1), or a single number unchanged."""
        return self.weights.new_tensor(values)[:, None] if self.several else values[0]

    def share(self) -> None:
        """Give each optimizer its part of the state."""
        for place, one in enumerate(self.optimizers):
            one.state[one.row] = {
                name: value[place] if isinstance(value, Tensor) else value
                for name, value in self.state.items()
            }


def rows_of(stack: Stack, optimizers: Sequence[Optimizer]) -> list[Rows]:
    """Return the rows that step together, at most as many as fit the cache.

    Args:
        stack: the stack of all members.
        optimizers: the optimizers of all members, in the order of the stack.
    """
    most = max(CACHED_NUMBERS // stack.weights.shape[1], 1)
    if stack.weights.device.type != "cpu":
        most = len(optimizers)
    found: list[tuple[int, list[RowOptimizer]]] = []
    for place, one in enumerate(optimizers):
        if not isinstance(one, RowOptimizer):
            continue
        start, last = found[-1] if found else (0, [])
        follows = last and start + len(last) == place and len(last) < most
        if follows and _alike(last[0], one):
            last.append(one)
        else:
            found.append((place, [one]))
    return [Rows(stack, slice(at, at + len(some)), some, most > 1) for at, some in found]


def order_of(trick: Trick) -> str:
    """Return a sort key that puts members with the same formula next to each other."""
    return repr(_form(trick))


def is_elementwise(trick: FormulaTrick) -> bool:
    """Tell whether a formula declares it; a user's class must do so itself, not by inheritance."""
    ours = type(trick).__module__.partition(".")[0] == __name__.partition(".")[0]
    return trick.elementwise and (ours or "elementwise" in vars(type(trick)))


def factors(clippings: Sequence[Trick], norms: Tensor) -> Tensor:
    """Return the factors that clip the gradients of each member; 1 for other kinds of clipping.

    Args:
        clippings: the clippings of all members.
        norms: the norms of their gradients, (K,).
    """
    found = torch.ones_like(norms)
    for kind, factor in ((NormClipping, norm_factor), (UnitClipping, unit_factor)):
        own = [type(clipping) is kind for clipping in clippings]
        if any(own):
            theta = norms.new_tensor([getattr(clipping, "theta", 1.0) for clipping in clippings])
            found = torch.where(torch.tensor(own, device=norms.device), factor(norms, theta), found)
    return found


def by_factor(clipping: Trick) -> bool:
    """Tell whether a clipping multiplies all gradients by one factor."""
    return type(clipping) in (NoClipping, NormClipping, UnitClipping)


def _alike(one: RowOptimizer, other: RowOptimizer) -> bool:
    """Tell whether two members take the same steps, except for the numbers in them."""
    return _form(one.trick) == _form(other.trick) and one.steps == other.steps


def _form(trick: Trick) -> tuple[Any, ...]:
    """Return a trick's fields except its numbers."""
    rest = [(name, value) for name, value in trick if not isinstance(value, float)]
    return (type(trick).__qualname__, *rest)


def _parts(penalties: Sequence[Sequence[Penalty]]) -> list[slice]:
    """Return the smallest parts of a row within which no member's penalties change."""
    ends = {end for own in penalties for p in own for end in (p.columns.start, p.columns.stop)}
    edges = sorted(ends)
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def _coefficient(penalties: Sequence[Penalty], columns: slice, name: str) -> float:
    for penalty in penalties:
        if penalty.columns.start <= columns.start and columns.stop <= penalty.columns.stop:
            coefficient: float = getattr(penalty, name)
            return coefficient
    return 0.0
