"""Recipes, which have one field for each training stage."""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Self

from pydantic import Field

from lightning_tricks.notebook import html_table
from lightning_tricks.space.domains import Choice, Domain
from lightning_tricks.space.trick import Trick, stages
from lightning_tricks.tricks.augmentation import Augmentation, Erasing, NoAugmentation, NoErasing
from lightning_tricks.tricks.averaging import Averaging, NoAveraging
from lightning_tricks.tricks.batch import Batches, OwnBatches
from lightning_tricks.tricks.clipping import Clipping, NormClipping
from lightning_tricks.tricks.dropout import AnyDropout, NoDropout, OwnDropout
from lightning_tricks.tricks.initialization import HeNormal, Initialization, KeepInitialization
from lightning_tricks.tricks.normalization import BatchNorm, Normalization, OwnNormalization
from lightning_tricks.tricks.optimizers.adam import Adam
from lightning_tricks.tricks.optimizers.any import AnyOptimizer
from lightning_tricks.tricks.optimizers.own import OwnOptimizer
from lightning_tricks.tricks.residual import (
    AnyStochasticDepth,
    AnyZeroGamma,
    NoStochasticDepth,
    NoZeroGamma,
    OwnStochasticDepth,
)
from lightning_tricks.tricks.scaling import NoScaling, Scaling, Standardize
from lightning_tricks.tricks.schedules import CosineSchedule, OwnSchedule, Schedule
from lightning_tricks.tricks.sharpness import NoSharpness, Sharpness
from lightning_tricks.tricks.stopping import NoStopping, Stopping
from lightning_tricks.tricks.targets import Mixing, NoMixing, NoSmoothing, Smoothing
from lightning_tricks.tricks.transfer import DiscriminativeRates, OwnParameters, Transfer, WholeNetwork
from lightning_tricks.tricks.weight_decay import DecoupledWeightDecay, WeightDecay


class Tricks(Trick):
    """A recipe of all training tricks; `Tricks()` is what a good practitioner would start from.

    A subclass may add its own fields, such as the width of its network, and change the defaults of
    others. The stages for images, classes, residual branches and sharpness are off, because they do
    not fit every task. A search leaves them off unless a subclass or a space asks for their kinds.
    """

    batch: Batches = Field(OwnBatches(), discriminator="kind")
    augmentation: Augmentation = Field(NoAugmentation(), discriminator="kind")
    erasing: Erasing = Field(NoErasing(), discriminator="kind")
    mixing: Mixing = Field(NoMixing(), discriminator="kind")
    smoothing: Smoothing = Field(NoSmoothing(), discriminator="kind")
    scaling: Scaling = Field(Standardize(), discriminator="kind")
    initialization: Initialization = Field(HeNormal(), discriminator="kind")
    normalization: Normalization = Field(BatchNorm(), discriminator="kind")
    dropout: AnyDropout = Field(NoDropout(), discriminator="kind")
    zero_gamma: AnyZeroGamma = Field(NoZeroGamma(), discriminator="kind")
    stochastic_depth: AnyStochasticDepth = Field(NoStochasticDepth(), discriminator="kind")
    transfer: Transfer = Field(WholeNetwork(), discriminator="kind")
    weight_decay: WeightDecay = Field(DecoupledWeightDecay(), discriminator="kind")
    optimizer: AnyOptimizer = Field(Adam(), discriminator="kind")
    sharpness: Sharpness = Field(NoSharpness(), discriminator="kind")
    clipping: Clipping = Field(NormClipping(), discriminator="kind")
    schedule: Schedule = Field(CosineSchedule(), discriminator="kind")
    averaging: Averaging = Field(NoAveraging(), discriminator="kind")
    stopping: Stopping = Field(NoStopping(), discriminator="kind")

    @classmethod
    def plain(cls) -> Self:
        """Return the recipe with every trick off: each stage at its neutral variant.

        Stages without a neutral variant, such as a subclass's field for its network, keep their default.
        """
        return cls(
            **{
                name: option()
                for name, options in stages(cls).items()
                for option in options.values()
                if option.neutral
            }
        )

    @classmethod
    def fine_tuning(cls, **stages: Any) -> Self:
        """Return the recipe to start from if the network is pretrained.

        It keeps the network's weights, norms and norm statistics. Adam learns slowly: at 2·10⁻⁴ in the
        head and at a tenth of that in the first layer.

        Args:
            stages: variants that replace these, such as `transfer=FrozenLayers()`.
        """
        kept = {
            "initialization": KeepInitialization(),
            "normalization": OwnNormalization(),
            "transfer": DiscriminativeRates(),
            "optimizer": Adam(lr=2e-4),
        }
        return cls(**{**kept, **stages})

    def differences(self, other: "Tricks") -> dict[str, tuple[str, str]]:
        """Return the stages in which two recipes differ: both variants in words, this recipe's first."""
        names = type(self).model_fields
        return {
            name: (describe(getattr(self, name)), describe(getattr(other, name)))
            for name in names
            if getattr(self, name) != getattr(other, name, None)
        }

    def _repr_html_(self) -> str:
        """Show every stage in a notebook, and the default of each stage that differs from it."""
        differences = self.differences(type(self)())
        rows = [
            (name, describe(getattr(self, name)), differences.get(name, ("", ""))[1])
            for name in type(self).model_fields
        ]
        return html_table(("stage", type(self).__name__, "by default"), rows)


@cache
def layer_stages(of: type[Tricks]) -> tuple[str, ...]:
    """Return the stages that change the layers of a network."""
    return _stages_where(of, lambda trick: trick.changes_layers)


@cache
def weight_stages(of: type[Tricks]) -> tuple[str, ...]:
    """Return the stages that draw weights or freeze them."""
    return _stages_where(of, lambda trick: trick.changes_weights)


@cache
def batch_stages(of: type[Tricks]) -> tuple[str, ...]:
    """Return the stages that change the contents of a batch."""
    return _stages_where(of, lambda trick: trick.changes_batch)


@cache
def forward_stages(of: type[Tricks]) -> tuple[str, ...]:
    """Return the stages that act in the forward of this package's modules."""
    return _stages_where(of, lambda trick: trick.needs_forward)


def _stages_where(of: type[Tricks], holds: Callable[[type[Trick]], bool]) -> tuple[str, ...]:
    return tuple(stage for stage, kinds in stages(of).items() if any(map(holds, kinds.values())))


class ModuleTricks(Tricks):
    """A recipe for your own LightningModule, which handles inputs and targets itself.

    By default the module keeps its norms, its dropout and its initial weights. Parameters that its own
    optimizer leaves out are not trained.
    """

    scaling: Annotated[Scaling, Choice("none")] = Field(NoScaling(), discriminator="kind")
    initialization: Annotated[
        Initialization,
        Choice(
            "keep",
            "uniform",
            "gaussian",
            "lecun_normal",
            "glorot_normal",
            "glorot_uniform",
            "he_normal",
            "he_uniform",
            "orthogonal",
        ),
    ] = Field(KeepInitialization(), discriminator="kind")
    normalization: Annotated[
        Normalization, Choice("own", "none", "batch", "layer", "group", "weight")
    ] = Field(OwnNormalization(), discriminator="kind")
    dropout: Annotated[AnyDropout, Choice("own", "none", "dropout")] = Field(
        OwnDropout(), discriminator="kind"
    )
    stochastic_depth: AnyStochasticDepth = Field(OwnStochasticDepth(), discriminator="kind")
    transfer: Transfer | OwnParameters = Field(  # type: ignore[assignment]  # wider
        OwnParameters(), discriminator="kind"
    )
    optimizer: AnyOptimizer | OwnOptimizer = Field(  # type: ignore[assignment]  # wider
        Adam(), discriminator="kind"
    )
    schedule: Schedule | OwnSchedule = Field(  # type: ignore[assignment]  # wider
        CosineSchedule(), discriminator="kind"
    )

    @classmethod
    def plain(cls) -> Self:
        return cls(**{**dict(super().plain()), "transfer": OwnParameters()})

    @classmethod
    def yours(cls) -> Self:
        """Return the recipe that trains the module unchanged: no trick touches it."""
        own = {
            "optimizer": OwnOptimizer(),  # type: ignore[call-arg]
            "schedule": OwnSchedule(),
        }
        changing = ("weight_decay", "sharpness", "clipping", "averaging", "stopping")
        off = {name: getattr(cls.plain(), name) for name in changing}
        return cls(**{**off, **own})

    @property
    def untouched(self) -> bool:
        """Whether this recipe trains the module unchanged."""
        return self == type(self).yours()


class ImageTricks(Tricks):
    """A recipe for an image classifier; a search also tries augmentation, erasing, mixing, smoothing."""

    augmentation: Annotated[Augmentation, Choice("none", "flip_crop", "trivial", "rand")] = Field(
        NoAugmentation(), discriminator="kind"
    )
    erasing: Annotated[Erasing, Choice("none", "erasing")] = Field(NoErasing(), discriminator="kind")
    mixing: Annotated[Mixing, Choice("none", "mixup", "cutmix")] = Field(
        NoMixing(), discriminator="kind"
    )
    smoothing: Annotated[Smoothing, Choice("none", "label_smoothing")] = Field(
        NoSmoothing(), discriminator="kind"
    )


def describe(value: object) -> str:
    """Return a stage's variant in words, with its searched fields: `adam (lr 0.002, beta1 0.9)`."""
    if not isinstance(value, Trick):
        return f"{value:.4g}" if isinstance(value, float) else str(value)
    fields = [
        f"{name} {describe(getattr(value, name))}"
        for name, field in type(value).model_fields.items()
        if any(isinstance(item, Domain) for item in field.metadata)
    ]
    kind = getattr(value, "kind", type(value).__name__)
    return f"{kind} ({', '.join(fields)})" if fields else str(kind)
