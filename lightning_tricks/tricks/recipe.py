"""Recipes, which have one field for each training stage."""

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field

from lightning_tricks.errors import InputError
from lightning_tricks.notebook import html_table
from lightning_tricks.space.domains import Choice, Domain
from lightning_tricks.space.trick import Trick, no_such_field, stages
from lightning_tricks.tricks.augmentation import Augmentation, Erasing, NoAugmentation, NoErasing
from lightning_tricks.tricks.averaging import Averaging, NoAveraging
from lightning_tricks.tricks.batch import Batches, OwnBatches
from lightning_tricks.tricks.clipping import Clipping, NormClipping
from lightning_tricks.tricks.dropout import AnyDropout, NoDropout, OwnDropout
from lightning_tricks.tricks.initialization import (
    Initialization,
    KeepInitialization,
    TorchInitialization,
)
from lightning_tricks.tricks.kinds import Kinds, kinds_of
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

    if TYPE_CHECKING:  # a stage takes the name of a kind, or a dict, too; editors know only its type

        def __init__(self, **stages: Any) -> None: ...

    batch: Batches = Field(default=OwnBatches(), discriminator="kind")
    augmentation: Augmentation = Field(default=NoAugmentation(), discriminator="kind")
    erasing: Erasing = Field(default=NoErasing(), discriminator="kind")
    mixing: Mixing = Field(default=NoMixing(), discriminator="kind")
    smoothing: Smoothing = Field(default=NoSmoothing(), discriminator="kind")
    scaling: Scaling = Field(default=Standardize(), discriminator="kind")
    initialization: Initialization = Field(default=TorchInitialization(), discriminator="kind")
    normalization: Normalization = Field(default=BatchNorm(), discriminator="kind")
    dropout: AnyDropout = Field(default=NoDropout(), discriminator="kind")
    zero_gamma: AnyZeroGamma = Field(default=NoZeroGamma(), discriminator="kind")
    stochastic_depth: AnyStochasticDepth = Field(default=NoStochasticDepth(), discriminator="kind")
    transfer: Transfer = Field(default=WholeNetwork(), discriminator="kind")
    weight_decay: WeightDecay = Field(default=DecoupledWeightDecay(), discriminator="kind")
    optimizer: AnyOptimizer = Field(default=Adam(), discriminator="kind")
    sharpness: Sharpness = Field(default=NoSharpness(), discriminator="kind")
    clipping: Clipping = Field(default=NormClipping(), discriminator="kind")
    schedule: Schedule = Field(default=CosineSchedule(), discriminator="kind")
    averaging: Averaging = Field(default=NoAveraging(), discriminator="kind")
    stopping: Stopping = Field(default=NoStopping(), discriminator="kind")

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

    @classmethod
    def kinds(cls, stage: str) -> Kinds:
        """Return a table of the kinds of a stage: what each does, its paper, what a search varies.

        Args:
            stage: such as `optimizer`.

        Raises:
            InputError: if there is no such stage; names one that is like it.

        Example:
            print(Tricks.kinds("optimizer"))
        """
        known = stages(cls)
        if stage not in known:
            raise InputError(no_such_field(stage, cls, stage, known))
        return kinds_of(known[stage])

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


class ModuleTricks(Tricks):
    """A recipe for your own LightningModule, which handles inputs and targets itself.

    By default the module keeps its norms, its dropout and its initial weights. Parameters that its own
    optimizer leaves out are not trained.
    """

    if TYPE_CHECKING:

        def __init__(self, **stages: Any) -> None: ...

    scaling: Annotated[Scaling, Choice("none")] = Field(default=NoScaling(), discriminator="kind")
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
    ] = Field(default=KeepInitialization(), discriminator="kind")
    normalization: Annotated[
        Normalization, Choice("own", "none", "batch", "layer", "group", "weight")
    ] = Field(default=OwnNormalization(), discriminator="kind")
    dropout: Annotated[AnyDropout, Choice("own", "none", "dropout")] = Field(
        default=OwnDropout(), discriminator="kind"
    )
    stochastic_depth: AnyStochasticDepth = Field(default=OwnStochasticDepth(), discriminator="kind")
    transfer: Transfer | OwnParameters = Field(  # type: ignore[assignment]  # wider
        default=OwnParameters(), discriminator="kind"
    )
    optimizer: AnyOptimizer | OwnOptimizer = Field(  # type: ignore[assignment]  # wider
        default=Adam(), discriminator="kind"
    )
    schedule: Schedule | OwnSchedule = Field(  # type: ignore[assignment]  # wider
        default=CosineSchedule(), discriminator="kind"
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

    if TYPE_CHECKING:

        def __init__(self, **stages: Any) -> None: ...

    augmentation: Annotated[Augmentation, Choice("none", "flip_crop", "trivial", "rand")] = Field(
        default=NoAugmentation(), discriminator="kind"
    )
    erasing: Annotated[Erasing, Choice("none", "erasing")] = Field(
        default=NoErasing(), discriminator="kind"
    )
    mixing: Annotated[Mixing, Choice("none", "mixup", "cutmix")] = Field(
        default=NoMixing(), discriminator="kind"
    )
    smoothing: Annotated[Smoothing, Choice("none", "label_smoothing")] = Field(
        default=NoSmoothing(), discriminator="kind"
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
