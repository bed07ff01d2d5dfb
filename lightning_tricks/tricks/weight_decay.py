"""Weight decay, for every optimizer alike.

Every trainable parameter is in exactly one optimizer group: decayed or not. Parameters of norms, biases
and the lengths `g` of weight norm are decayed only if `norms_and_biases` is set.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from lightning_tricks.space.domains import Choice, Float
from lightning_tricks.space.trick import Trick
from lightning_tricks.surgery.anatomy import parameters_of
from lightning_tricks.surgery.norms import NORMS
from lightning_tricks.surgery.watch import anatomy_of
from lightning_tricks.surgery.weight_norm import trained_weights


class WeightDecayTrick(Trick):
    """How large weights are penalized."""

    def groups(self, module: nn.Module) -> list[dict[str, Any]]:
        """Split the trainable parameters of a module into optimizer groups.

        The keys `l2`, `l1` and `decoupled` of a group hold its coefficients. Frozen parameters that the
        module's own optimizer holds belong to them, because the module may unfreeze them.
        """
        later = anatomy_of(module).later
        trainable = [p for name, p in module.named_parameters() if p.requires_grad or name in later]
        spared = set() if self.decays_all() else norms_and_biases(module)
        decayed = [p for p in trainable if id(p) not in spared]
        rest = [p for p in trainable if id(p) in spared]
        groups: list[dict[str, Any]] = [
            {"params": decayed, **self.coefficients()},
            {"params": rest},
        ]
        return [group for group in groups if group["params"]]

    def coefficients(self) -> dict[str, float]:
        """Return the coefficients of the decayed group."""
        return {}

    def decays_all(self) -> bool:
        """Tell whether norms and biases are treated like the other parameters."""
        return True


class NoWeightDecay(WeightDecayTrick):
    """No penalty."""

    neutral: ClassVar[bool] = True
    kind: Literal["none"] = "none"


class _Penalty(WeightDecayTrick):
    """A penalty on the weights, and on norms and biases if asked for."""

    kind: str
    norms_and_biases: Annotated[bool, Choice(False, True)] = False

    def decays_all(self) -> bool:
        return self.norms_and_biases


class L2(_Penalty):
    """Loss + λ/2·‖w‖²: λ·w is added to the gradient (Krogh and Hertz, 1992).

    The optimizer's formula uses the sum.

    When it helps: with SGD, with or without momentum. Optimizers that divide by the size of gradients
    divide the penalty too: with Adam, use `decoupled`.
    """

    kind: Literal["l2"] = "l2"
    strength: Annotated[float, Float(1e-6, 1e-2, log=True)] = Field(default=5e-4, ge=0)

    def coefficients(self) -> dict[str, float]:
        return {"l2": self.strength}


class L1(_Penalty):
    """Loss + λ·‖w‖₁: λ·sign(w) is added to the gradient (Tibshirani, 1996).

    When it helps: where few of many inputs matter, as in tables. Weights come close to zero and move
    around it, but are not exactly zero.
    """

    kind: Literal["l1"] = "l1"
    strength: Annotated[float, Float(1e-7, 1e-3, log=True)] = Field(default=1e-5, ge=0)

    def coefficients(self) -> dict[str, float]:
        return {"l1": self.strength}


class DecoupledWeightDecay(_Penalty):
    """w ← (1 − η·λ)·w plus the optimizer's step; with Adam, AdamW (Loshchilov and Hutter, 2019).

    When it helps: in long runs, with Adam and similar optimizers. The decay is η·λ, so a larger learning
    rate decays more. A few epochs show little effect.
    """

    kind: Literal["decoupled"] = "decoupled"
    strength: Annotated[float, Float(1e-3, 1.0, log=True)] = Field(default=2e-2, ge=0)

    def coefficients(self) -> dict[str, float]:
        return {"decoupled": self.strength}


def norms_and_biases(module: nn.Module) -> set[int]:
    """Return the ids of the parameters of norms, of biases, and of the lengths of weight norm.

    These are all vectors that are no layer's weights and no lookup table, whatever their names.
    """
    anatomy = anatomy_of(module)
    held = parameters_of(module)
    weights = {id(parameter) for _, _, parameter in trained_weights(module, anatomy)}
    weights |= {id(held[name]) for name in anatomy.tables if name in held}
    found = {id(p) for p in held.values() if sum(side > 1 for side in p.shape) < 2}
    for layer in module.modules():
        if isinstance(layer, NORMS):
            found |= {id(parameter) for parameter in layer.parameters(recurse=False)}
    return found - weights


WeightDecay = NoWeightDecay | L2 | DecoupledWeightDecay | L1
