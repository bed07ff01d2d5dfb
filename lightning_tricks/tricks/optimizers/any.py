"""The optimizer stage: one of all optimizers."""

from lightning_tricks.tricks.optimizers.adagrad import Adagrad
from lightning_tricks.tricks.optimizers.adam import Adam
from lightning_tricks.tricks.optimizers.lion import Lion
from lightning_tricks.tricks.optimizers.momentum import Momentum, Nesterov, TorchMomentum
from lightning_tricks.tricks.optimizers.muon import Muon
from lightning_tricks.tricks.optimizers.normalized import NormalizedSGD
from lightning_tricks.tricks.optimizers.rmsprop import RMSProp
from lightning_tricks.tricks.optimizers.schedule_free import ScheduleFree
from lightning_tricks.tricks.optimizers.sgd import SGD

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
