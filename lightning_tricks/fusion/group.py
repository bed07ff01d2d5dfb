"""A group of trials, trained as one: each step is one forward and one backward pass for all."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lightning_tricks.fusion.member import Member
from lightning_tricks.fusion.parity import check_parity
from lightning_tricks.fusion.rows import RowOptimizer, by_factor, factors, order_of, rows_of
from lightning_tricks.fusion.stack import Stack
from lightning_tricks.fusion.unfusible import Unfusible
from lightning_tricks.fusion.validation import measured
from lightning_tricks.module import health
from lightning_tricks.module.tricks_module import TricksModule
from lightning_tricks.trial.result import Interrupted
from lightning_tricks.tricks.clipping import NoClipping


class Group:
    """A group of trials. When one ends, it leaves, and the stack gets smaller.

    Args:
        members: members with networks of one structure, on one device.
        interrupted: tells whether to stop everything.

    Raises:
        Unfusible: if their structures or batch sizes differ, or the parity check fails.
    """

    def __init__(self, members: Sequence[Member], interrupted: Callable[[], bool]) -> None:
        self.members = sorted(members, key=lambda member: order_of(member.tricks.optimizer))
        self.interrupted = interrupted
        if len({(len(m.loader.split.inputs), m.loader.batch_size) for m in members}) > 1:
            raise Unfusible("their batches have different sizes")
        self.stack = Stack([m.module for m in self.members], [m.random for m in self.members])
        for place, member in enumerate(self.members):
            member.join(self.stack, place)
        self.errors: dict[Member, Exception] = {}
        """Errors of the members that failed."""
        self.ends = self._ends(self.members[0].module)
        self._arrange()
        check_parity(self.stack, self.members)

    def _arrange(self) -> None:
        """Prepare the operations that many members can do at once."""
        self.rows = rows_of(self.stack, [member.optimizer for member in self.members])
        self.clippings = [member.tricks.clipping for member in self.members]
        self.clips = not all(isinstance(clipping, NoClipping) for clipping in self.clippings)
        self.sharpness = [member.tricks.sharpness for member in self.members]

    def leave(self) -> list[Member]:
        """Remove the members that have ended, and return them. They keep their own tensors."""
        left = [member for member in self.members if member.done or member in self.errors]
        if left:
            stay = [place for place, member in enumerate(self.members) if member not in left]
            self.stack.keep(stay, [member.module for member in self.members])
            self.members = [self.members[place] for place in stay]
            for place, member in enumerate(self.members):
                member.move(self.stack, place)
            self._arrange()
        return left

    def run_epoch(self) -> None:
        """Train all members for one epoch, and validate them.

        Raises:
            Interrupted: if `interrupted` returns true.
            Exception: whatever a pass through the networks raises.
        """
        begin = time.perf_counter()
        for member in self.members:
            member.begin_epoch()
        self.stack.follow(self.members[0].module)
        first = self.members[0].loader.split
        self.plain = all(m.plain and m.loader.split.inputs is first.inputs for m in self.members)
        steps = []
        for number in range(len(self.members[0].order)):
            if self.interrupted():
                raise Interrupted
            steps.append(self._step(number))
        figures = torch.stack(steps).mean(0).T.tolist()  # (K, 5)
        for rows in self.rows:
            rows.share()
        self._validate([health.figures(*numbers) for numbers in figures])
        for member in self.members:
            member.look()
        spent = time.perf_counter() - begin
        for member in self.members:  # each member is charged its share of the time
            member.watcher.start += spent * (1 - 1 / len(self.members))

    @property
    def _running(self) -> list[tuple[int, Member]]:
        """The members without an error, with their places."""
        return [(at, member) for at, member in enumerate(self.members) if member not in self.errors]

    def _step(self, number: int) -> Tensor:
        """Take a step. Return losses, gradient norms and the other health figures, (5, K)."""
        inputs, targets = self._batches(number)
        losses = self._sharp(inputs, targets)
        with torch.no_grad():
            norms = torch.linalg.vector_norm(self.stack.gradients, dim=1)
            ends = [torch.linalg.vector_norm(self.stack.gradients[:, at], dim=1) for at in self.ends]
            self._look(losses, norms, number)
            clipped = self._clip(norms)
            for rows in self.rows:
                rows.step()
            for _, member in self._running:
                if not isinstance(member.optimizer, RowOptimizer):
                    member.step()
                member.end_step(number)
        return torch.stack([losses, norms, clipped, *ends])

    def _clip(self, norms: Tensor) -> Tensor:
        """Clip the gradients of each member. Return 1 for each whose gradients changed, else 0."""
        if not self.clips:
            return torch.zeros_like(norms)
        factor = factors(self.clippings, norms)
        self.stack.gradients.mul_(factor[:, None])
        clipped = (factor != 1).to(norms.dtype)
        for place, member in self._running:
            if not by_factor(self.clippings[place]):
                clipped[place] = member.clip(norms[place])
        return clipped

    def _ends(self, module: TricksModule) -> list[slice]:
        """Return the columns of the first and the last layer's weights."""
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        return [self.stack.columns[names[id(weight)]] for weight in module.end_weights]

    def _batches(self, number: int) -> tuple[Tensor, Tensor | Sequence[Tensor]]:
        """Return the inputs of all members, (K, N, …), and the targets of each."""
        if self.plain:
            index = torch.stack([member.order[number] for member in self.members])
            inputs, targets = self.members[0].loader.split
            device = self.stack.weights.device
            cast = self.members[0].module.cast
            return cast(inputs[index].to(device)), targets[index].to(device)
        batches = [member.batch(number) for member in self.members]
        return torch.stack([inputs for inputs, _ in batches]), [targets for _, targets in batches]

    def _sharp(self, inputs: Tensor, targets: Tensor | Sequence[Tensor]) -> Tensor:
        """Put the step's gradients into the stack. Return the losses at the unperturbed weights."""
        if all(trick.neutral for trick in self.sharpness):
            return self._pass(inputs, targets)
        states = [member.random.get_state() for member in self.members]
        losses = self._pass(inputs, targets)
        with torch.no_grad():
            weights, held, gradients = (
                self.stack.weights.detach().clone(),
                self.stack.state(),
                self.stack.gradients.clone(),
            )
            for place, trick in enumerate(self.sharpness):
                self.stack.weights[place] += trick.climb(gradients[place])
        for member, state in zip(self.members, states, strict=True):
            member.random.set_state(state)
        self._pass(inputs, targets)
        with torch.no_grad():
            self.stack.weights.copy_(weights)
            self.stack.restore(held)
            for place, trick in enumerate(self.sharpness):
                if trick.neutral:
                    self.stack.gradients[place] = gradients[place]
        return losses

    def _pass(self, inputs: Tensor, targets: Tensor | Sequence[Tensor]) -> Tensor:
        """Pass a batch forward and back. Return the losses, (K,)."""
        outputs = self.stack.outputs(inputs)
        losses = self._losses(outputs, targets)
        self.stack.backward(losses)
        return losses.detach()

    def _losses(self, outputs: Any, targets: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the loss of each member, with one pass for all targets of the same form."""
        loss_of = torch.vmap(self.members[0].module.loss_of, randomness="error")
        if isinstance(targets, Tensor):
            losses: Tensor = loss_of(outputs, targets)
            return losses
        forms: dict[Any, list[int]] = {}
        for place, some in enumerate(targets):
            forms.setdefault((some.dtype, some.shape), []).append(place)
        if len(forms) == 1:
            return self._losses(outputs, torch.stack(list(targets)))
        parts = [
            loss_of(
                tree_map(lambda whole, at=places: whole[at], outputs),
                torch.stack([targets[place] for place in places]),
            )
            for places in forms.values()
        ]
        order = [place for places in forms.values() for place in places]
        return torch.cat(parts)[torch.tensor(order).argsort().to(parts[0].device)]

    def _look(self, losses: Tensor, norms: Tensor, number: int) -> None:
        """End the members whose loss or gradients are not finite. The others are not affected."""
        seldom = losses.device.type != "cpu" and number + 1 < len(self.members[0].order)
        if seldom and (number + 1) % health.CHECK_EVERY:
            return
        if torch.isfinite(losses + norms).all():
            return
        for place, member in self._running:
            step = member.trainer.global_step + 1
            if error := health.diverged(losses[place].item(), norms[place].item(), step):
                self.errors[member] = error

    def _validate(self, figures: Sequence[Mapping[str, float]]) -> None:
        """Validate all members and let them report."""
        for place, member in self._running:
            self._attempt(member, partial(member.begin_validation, figures[place]))
        if not self._running:
            return
        with torch.no_grad():
            metrics = measured(self.stack, self.members, self._running, self._attempt, self.interrupted)
        for _, member in self._running:
            self._attempt(member, partial(member.end_validation, metrics[member]))

    def _attempt(self, member: Member, action: Callable[[], None]) -> None:
        """Do something for one member. An error ends this member, not the group."""
        if member in self.errors:
            return
        try:
            action()
        except Exception as error:  # the user's code may raise anything
            if isinstance(error, Interrupted) or self.interrupted():
                raise Interrupted from None
            if isinstance(error, (Unfusible, torch.OutOfMemoryError)):
                raise  # a smaller group needs less memory
            self.errors[member] = error
