"""Optimizers: each a pure formula that turns a gradient into a step.

A formula, `OptimizerTrick.update`, sees one flat tensor and plain numbers, and uses arithmetic that
broadcasts: in place of a number it takes a tensor of numbers, one for each of many models trained
at once. `FlatOptimizer` drives a formula over the parameters of a model; a whole group costs a
handful of tensor operations, however many parameters it has.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import pytorch_lightning as pl
import torch
from pydantic import Field
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.optim import Optimizer

from lightning_tricks import surgery
from lightning_tricks.errors import InputError
from lightning_tricks.space import Choice, Float, OneMinus, Trick
from lightning_tricks.statistics import refresh_statistics

FLAT_NUMBERS = 2**20
"""A larger group is not put together: that costs more than it saves."""

State = dict[str, Any]
Number = float | Tensor


class OptimizerTrick(Trick):
    """The formula by which a gradient changes the weights."""

    kind: str
    lr: float

    def build(self, groups: list[dict[str, Any]], module: nn.Module) -> Optimizer:
        """Return the optimizer of a module.

        Args:
            groups: its parameters, as `WeightDecayTrick.groups` splits them.
            module: the module.

        Raises:
            InputError: if the module has no parameters of the kind that it is for.
        """
        del module
        return FlatOptimizer(groups, self)

    def callback(self) -> pl.Callback | None:
        """Return the Lightning callback that it needs; None where it needs none."""
        return None

    def direct(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the gradients, one for each parameter, as the formula is to see them."""
        return gradients

    @abstractmethod
    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        """Return the step to add to the weights, of the gradient's shape.

        Args:
            gradient: flat, of parameters of a group.
            state: what the formula keeps between steps; empty before the first.
            lr: the learning rate of this step, η.
        """


class SGD(OptimizerTrick):
    """w ← w − η·g (Robbins and Monro, 1951)."""

    neutral: ClassVar[bool] = True
    kind: Literal["sgd"] = "sgd"
    lr: Annotated[float, Float(1e-2, 1.0, log=True)] = Field(0.1, gt=0)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        del state
        return -lr * gradient


class Momentum(OptimizerTrick):
    """v ← γ·v − η·g; w ← w + v, as the lesson has it (Polyak, 1964; Sutskever et al., 2013).

    The velocity holds past learning rates: after a drop of η it is still fast.
    """

    kind: Literal["momentum"] = "momentum"
    lr: Annotated[float, Float(1e-3, 0.5, log=True)] = Field(0.05, gt=0)
    gamma: Annotated[float, OneMinus(5e-3, 0.3)] = Field(0.9, ge=0, lt=1)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        velocity = _start(state, "velocity", gradient).mul_(self.gamma).sub_(lr * gradient)
        state["velocity"] = velocity
        return velocity


class TorchMomentum(OptimizerTrick):
    """b ← γ·b + g; w ← w − η·b, as `torch.optim.SGD` has it.

    Equal to `momentum` while η is constant; a drop of η slows it down at once.
    """

    kind: Literal["torch_momentum"] = "torch_momentum"
    lr: Annotated[float, Float(1e-3, 0.5, log=True)] = Field(0.05, gt=0)
    gamma: Annotated[float, OneMinus(5e-3, 0.3)] = Field(0.9, ge=0, lt=1)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        buffer = _start(state, "buffer", gradient).mul_(self.gamma).add_(gradient)
        state["buffer"] = buffer
        return -lr * buffer


class Nesterov(OptimizerTrick):
    """b ← γ·b + g; w ← w − η·(g + γ·b) (Nesterov, 1983; Sutskever et al., 2013)."""

    kind: Literal["nesterov"] = "nesterov"
    lr: Annotated[float, Float(1e-3, 0.5, log=True)] = Field(0.05, gt=0)
    gamma: Annotated[float, OneMinus(5e-3, 0.3)] = Field(0.9, ge=0, lt=1)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        buffer = _start(state, "buffer", gradient).mul_(self.gamma).add_(gradient)
        state["buffer"] = buffer
        return -lr * (gradient + self.gamma * buffer)


class NormalizedSGD(OptimizerTrick):
    """w ← w − η·g/(‖g‖ + ε), which the lesson calls Adagrad (Hazan et al., 2015).

    The norm is taken over each parameter tensor or over all parameters. A step has the length η
    however small the gradient is, so the learning rate must decay for it to settle.
    """

    kind: Literal["normalized_sgd"] = "normalized_sgd"
    lr: Annotated[float, Float(1e-2, 1.0, log=True)] = Field(0.1, gt=0)
    scope: Annotated[Literal["layer", "global"], Choice("layer", "global")] = "layer"
    epsilon: float = Field(1e-12, gt=0)

    def direct(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        norms = list(torch._foreach_norm(list(gradients)))
        if self.scope == "global":
            norms = [torch.linalg.vector_norm(torch.stack(norms))] * len(norms)
        return [g / (norm + self.epsilon) for g, norm in zip(gradients, norms, strict=True)]

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        del state
        return -lr * gradient


class Adagrad(OptimizerTrick):
    """s ← s + g²; w ← w − η·g/(√s + ε), coordinate by coordinate (Duchi et al., 2011)."""

    kind: Literal["adagrad"] = "adagrad"
    lr: Annotated[float, Float(3e-3, 0.3, log=True)] = Field(0.03, gt=0)
    epsilon: float = Field(1e-10, gt=0)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        total = _start(state, "sum", gradient).addcmul_(gradient, gradient)
        state["sum"] = total
        return -lr * gradient / (total.sqrt() + self.epsilon)


class RMSProp(OptimizerTrick):
    """s ← ρ·s + (1 − ρ)·g²; w ← w − η·g/(√s + ε) (Hinton, 2012; ε outside the root, as torch)."""

    kind: Literal["rmsprop"] = "rmsprop"
    lr: Annotated[float, Float(1e-4, 1e-2, log=True)] = Field(1e-3, gt=0)
    rho: Annotated[float, OneMinus(1e-3, 0.3)] = Field(0.99, ge=0, lt=1)
    epsilon: float = Field(1e-8, gt=0)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        square = _average(state, "square", gradient * gradient, self.rho)
        return -lr * gradient / (square.sqrt() + self.epsilon)


class Adam(OptimizerTrick):
    """w ← w − η·m̂/(√v̂ + ε) with averages m of g and v of g² (Kingma and Ba, 2015).

    m̂ and v̂ are divided by 1 − βᵗ. With decoupled weight decay it is AdamW.
    """

    elsewhere: ClassVar[Mapping[str, str]] = {"adamw": "adam beside weight_decay decoupled"}
    kind: Literal["adam"] = "adam"
    lr: Annotated[float, Float(1e-4, 3e-2, log=True)] = Field(2e-3, gt=0)
    beta1: Annotated[float, OneMinus(0.02, 0.5)] = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    epsilon: float = Field(1e-8, gt=0)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        step: int = state.get("step", 0) + 1
        state["step"] = step
        mean = _average(state, "mean", gradient, self.beta1)
        square = _average(state, "square", gradient * gradient, self.beta2)
        correction: Number = (1 - self.beta2**step) ** 0.5
        size = -lr * correction / (1 - self.beta1**step)
        return (mean / square.sqrt().add_(self.epsilon * correction)).mul_(size)


class Lion(OptimizerTrick):
    """c ← β₁·m + (1 − β₁)·g; w ← w − η·sign(c); m ← β₂·m + (1 − β₂)·g (Chen et al., 2023).

    A step is three to ten times as long as Adam's at the same η, so η is to be smaller, and the
    decoupled weight decay larger by as much.
    """

    kind: Literal["lion"] = "lion"
    lr: Annotated[float, Float(3e-5, 3e-3, log=True)] = Field(3e-4, gt=0)
    beta1: Annotated[float, OneMinus(0.02, 0.5)] = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.99, ge=0, lt=1)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        mean = _start(state, "mean", gradient)
        direction = (mean * self.beta1 + gradient * (1 - self.beta1)).sign()
        _average(state, "mean", gradient, self.beta2)
        return -lr * direction


class Muon(OptimizerTrick):
    """w ← w − η·0.2·√max(n, m)·UVᵀ, where USVᵀ is the n×m momentum (Jordan et al., 2024).

    For the weights of hidden layers, convolutions read as matrices of n output channels, with
    `torch.optim.Muon`, whose steps are scaled to the length of Adam's. All other parameters, the
    head's among them, follow Adam with the same η.
    """

    kind: Literal["muon"] = "muon"
    lr: Annotated[float, Float(1e-4, 3e-2, log=True)] = Field(2e-3, gt=0)
    momentum: Annotated[float, OneMinus(0.02, 0.2)] = Field(0.95, ge=0, lt=1)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)

    def build(self, groups: list[dict[str, Any]], module: nn.Module) -> Optimizer:
        hidden = {id(surgery.trained_weight(layer)) for layer in surgery.hidden_layers(module)}
        split: list[dict[str, Any]] = []
        for group in groups:
            for matrices in (True, False):
                chosen = [p for p in group["params"] if (id(p) in hidden) == matrices]
                if chosen:
                    split.append({**group, "params": chosen, "matrices": matrices})
        if not any(group["matrices"] for group in split):
            raise InputError(
                "optimizer 'muon' found nothing to act on: looked for the weights of nn.Linear and "
                "convolutions other than the last"
            )
        return _MuonOptimizer(split, self)

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        """Return the step of Adam, for what is no matrix of a hidden layer."""
        return Adam(beta1=self.beta1, beta2=self.beta2).update(gradient, state, lr)


class ScheduleFree(OptimizerTrick):
    """Adam at y = (1 − β₁)·z + β₁·x, where x averages the iterates z (Defazio et al., 2024).

    `schedulefree.AdamWScheduleFree`. What is validated, scored and left at the end is x, with
    statistics of batch norm gathered under it; so is what is saved after a validation. It is meant
    to go with a constant schedule: x takes its part.
    """

    kind: Literal["schedule_free"] = "schedule_free"
    lr: Annotated[float, Float(3e-4, 1e-1, log=True)] = Field(5e-3, gt=0)
    beta1: Annotated[float, OneMinus(0.02, 0.2)] = Field(0.9, gt=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    warmup_steps: int = Field(20, ge=0, le=10**9)

    def build(self, groups: list[dict[str, Any]], module: nn.Module) -> Optimizer:
        del module
        return _ScheduleFreeOptimizer(groups, self)

    def callback(self) -> pl.Callback:
        return _ScheduleFreeMode()

    def update(self, gradient: Tensor, state: State, lr: Number) -> Tensor:
        raise NotImplementedError("schedule_free steps as the package schedulefree does")


class FlatOptimizer(Optimizer):
    """Drive a formula over the parameters of a model, many of them as one flat tensor.

    A parameter without a gradient is left alone, as torch does: no step, no decay, no word of it in
    the state. So a group is kept in blocks of parameters that have had gradients at the same steps:
    these have one state. A group begins as one block, and a block is parted once only some of its
    parameters have a gradient. The parameters of a group share a device and a floating-point type.
    """

    def __init__(self, groups: list[dict[str, Any]], trick: OptimizerTrick) -> None:
        self.trick = trick
        super().__init__(groups, {"lr": trick.lr, "l2": 0.0, "l1": 0.0, "decoupled": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; evaluates the closure first, with gradients enabled."""
        loss = _evaluate(closure)
        active = [(group, _active(group)) for group in self.param_groups]
        active = [(group, parameters) for group, parameters in active if parameters]
        gradients = [g for group, parameters in active for g in _penalized(group, parameters)]
        directed = iter(self.trick.direct(gradients) if gradients else ())
        for group, parameters in active:
            steps = self._steps(group, parameters, [next(directed) for _ in parameters])
            if group["decoupled"]:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["decoupled"])
            torch._foreach_add_(parameters, list(steps))
        return loss

    def _steps(
        self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]
    ) -> Sequence[Tensor]:
        """Return what to add to each of the parameters of a group that have a gradient."""
        blocks = self._blocks(group, parameters)
        if len(blocks) == 1:  # all have one
            return self._step(parameters, gradients, group["lr"])
        found = dict(zip(parameters, gradients, strict=True))
        for places in blocks:
            block = [group["params"][place] for place in places]
            if block[0] in found:
                steps = self._step(block, [found[parameter] for parameter in block], group["lr"])
                found.update(zip(block, steps, strict=True))
        return list(found.values())

    def _step(self, block: list[Tensor], gradients: list[Tensor], lr: float) -> Sequence[Tensor]:
        """Return what to add to each parameter of a block, whose state is that of its first."""
        state = self.state[block[0]]
        if len(block) == 1:
            return [self.trick.update(gradients[0], state, lr)]
        return _parts(self.trick.update(_flat(gradients), state, lr), block)

    def _blocks(self, group: dict[str, Any], active: list[Tensor]) -> list[list[int]]:
        """Return the blocks of a group, as places in it, once those are parted that have to be.

        They stand in the group, for that is saved with the state.
        """
        parameters = group["params"]
        if "blocks" not in group:
            places = list(range(len(parameters)))
            small = sum(parameter.numel() for parameter in parameters) <= FLAT_NUMBERS
            group["blocks"] = [places] if small else [[place] for place in places]
        if len(active) < len(parameters):
            having = {id(parameter) for parameter in active}
            missing = {place for place, p in enumerate(parameters) if id(p) not in having}
            parts = [self._parted(parameters, places, missing) for places in group["blocks"]]
            group["blocks"] = [part for block in parts for part in block]
        blocks: list[list[int]] = group["blocks"]
        return blocks

    def _parted(self, parameters: list[Tensor], places: list[int], missing: set[int]) -> list[list[int]]:
        """Part a block, and its state, into what has gradients and what has none."""
        parts = [[p for p in places if p not in missing], [p for p in places if p in missing]]
        if not all(parts):
            return [places]
        whole = [parameters[place] for place in places]
        state = self.state.pop(whole[0], {})
        for part in parts:
            kept = [parameters[place] for place in part]
            self.state[kept[0]] = {k: _share(value, whole, kept) for k, value in state.items()}
        return parts


class _MuonOptimizer(FlatOptimizer):
    """Torch's Muon for the groups of matrices, the formula for the others."""

    trick: Muon

    def _steps(
        self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]
    ) -> Sequence[Tensor]:
        if not group["matrices"]:
            return super()._steps(group, parameters, gradients)
        # Torch's Muon changes matrices: zeros become the step.
        matrices = [nn.Parameter(torch.zeros_like(gradient.flatten(1))) for gradient in gradients]
        muon = torch.optim.Muon(
            matrices,
            lr=group["lr"],
            weight_decay=0.0,
            momentum=self.trick.momentum,
            adjust_lr_fn="match_rms_adamw",
        )
        states = [self.state[parameter] for parameter in parameters]
        for matrix, gradient, state in zip(matrices, gradients, states, strict=True):
            matrix.grad = gradient.flatten(1)
            if "momentum" in state:
                muon.state[matrix]["momentum_buffer"] = state["momentum"]
        muon.step()  # type: ignore[no-untyped-call]
        for matrix, state in zip(matrices, states, strict=True):
            state["momentum"] = muon.state[matrix]["momentum_buffer"]
        return [m.detach().view_as(g) for m, g in zip(matrices, gradients, strict=True)]


class _ScheduleFreeOptimizer(AdamWScheduleFree):  # type: ignore[misc]  # it has no types
    """Schedule-free AdamW with the weight decays of a record."""

    def __init__(self, groups: list[dict[str, Any]], trick: ScheduleFree) -> None:
        decays = {"l2": 0.0, "l1": 0.0, "decoupled": 0.0}
        full = [{**decays, **group} for group in groups]
        super().__init__(
            [{**group, "weight_decay": group["decoupled"]} for group in full],
            lr=trick.lr,
            betas=(trick.beta1, trick.beta2),
            warmup_steps=trick.warmup_steps,
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; evaluates the closure first, with gradients enabled."""
        loss = _evaluate(closure)
        for group in self.param_groups:
            parameters = _active(group)
            for parameter, gradient in zip(parameters, _penalized(group, parameters), strict=True):
                parameter.grad = gradient
        super().step()
        return loss


class _ScheduleFreeMode(pl.Callback):
    """Put the average x into the module to validate it, and y back to train on."""

    def on_train_batch_start(self, trainer: pl.Trainer, *unused: Any) -> None:
        # Not at the end of validation: others may still have their weights in the module.
        del unused
        for optimizer in trainer.optimizers:
            optimizer.train()  # type: ignore[attr-defined]

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._show(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._show(trainer, pl_module)

    def _show(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        training = any(g["train_mode"] for o in trainer.optimizers for g in o.param_groups)
        for optimizer in trainer.optimizers:
            optimizer.eval()  # type: ignore[attr-defined]
        if training:
            refresh_statistics(trainer, module)


def _evaluate(closure: Callable[[], Any] | None) -> Any:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _active(group: dict[str, Any]) -> list[Tensor]:
    return [parameter for parameter in group["params"] if parameter.grad is not None]


def _penalized(group: dict[str, Any], parameters: list[Tensor]) -> Sequence[Tensor]:
    """Return the gradients with those of the L2 and L1 penalties, leaving the parameters' own alone."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if parameters and group["l2"]:
        gradients = list(torch._foreach_add(gradients, parameters, alpha=group["l2"]))
    if parameters and group["l1"]:
        signs = [parameter.sign() for parameter in parameters]
        gradients = list(torch._foreach_add(gradients, signs, alpha=group["l1"]))
    return gradients


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    flat: Tensor = _flatten_dense_tensors(tensors)  # type: ignore[no-untyped-call]
    return flat


def _parts(flat: Tensor, like: Sequence[Tensor]) -> Sequence[Tensor]:
    parts: Sequence[Tensor] = _unflatten_dense_tensors(flat, like)  # type: ignore[no-untyped-call]
    return parts


def _share(value: Any, whole: Sequence[Tensor], kept: Sequence[Tensor]) -> Any:
    """Return what a value of a block's state holds of some of its parameters; a number is of all."""
    if not isinstance(value, Tensor):
        return value
    parts = dict(zip(whole, _parts(value, whole), strict=True))
    chosen = [parts[parameter] for parameter in kept]
    return chosen[0].clone() if len(chosen) == 1 else _flat(chosen)


def _start(state: State, name: str, like: Tensor) -> Tensor:
    """Return a tensor of the state, zeros before the first step."""
    found: Tensor = state[name] if name in state else torch.zeros_like(like)
    return found


def _average(state: State, name: str, value: Tensor, decay: Number) -> Tensor:
    """Return the exponential average after one more value, which the state keeps."""
    average = _start(state, name, value).lerp_(value, 1 - decay)
    state[name] = average
    return average


AnyOptimizer = (
    SGD
    | Momentum
    | TorchMomentum
    | Nesterov
    | NormalizedSGD
    | Adagrad
    | RMSProp
    | Adam
    | Lion
    | Muon
    | ScheduleFree
)
